"""The data settings of a video run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlvr_world.config import what
from rlvr_world.domains.video.rewards import RewardConfig
from rlvr_world.domains.video.splits import SplitRule
from rlvr_world.domains.video.worlds import Spec
from rlvr_world.domains.video.worlds.pusht import PushTSpec
from rlvr_world.vision.config import TokenizerConfig


@dataclass(frozen=True)
class VideoConfig:
    source: Literal["pusht", "rope", "granular", "drawer", "npz", "lerobot", "dino_wm", "folder"] = what(
        "pusht", "an embedded world, played with data.world; or the layout of the episodes at data.path"
    )
    path: str = what("", "episodes: a folder, or for lerobot a hub id")
    camera: str = what("", "lerobot: which of several cameras")
    world: Spec = field(default_factory=PushTSpec)
    cache: str = what("~/.cache/rlvr_world/video", "where played episodes are kept, and the tokens of all clips")
    split: SplitRule = field(default_factory=SplitRule)
    height: int = what(64, "frames are brought to this height", "pixels")
    width: int = what(64, "frames are brought to this width", "pixels")
    kind: Literal["single_step", "multi_step"] = what(
        "single_step", "given frames to the next one; or a far context frame and the current frame to several"
    )
    context: int = what(2, "single-step: given frames", "frames")
    context_back: int = what(15, "multi-step: the far context frame lies at most this far back", "steps")
    horizon: int = what(1, "predicted frames", "frames")
    frame_skip: int = what(5, "steps from one frame to the next; their actions go together", "steps")
    action_pool: int = what(1, "steps whose actions are given as their mean; 1 gives each", "steps")
    train_every: int = what(1, "steps from the start of one training clip to the next", "steps")
    test_every: int = what(0, "the same for validation and test; 0 takes one clip an episode, as published", "steps")
    action_bins: int = what(256, "bins of an action's field", "bins")
    action_ranges: Literal["minmax", "quantile"] = what(
        "quantile", "ends of the bins: the extremes of the training actions (published), or their 1 % and 99 % points"
    )
    embeddings: Literal["random", "ordered"] = what(
        "random", "a new model's embeddings begin: random (published); or near each other for codes and bins that are"
    )
    proprio: bool = what(False, "predict proprioception too, in bins like an action's")
    skip_blocks: bool = what(
        False, "patches whose token is that of the frame before keep its pixels, as skip blocks in video codecs do"
    )
    jittered: int = what(0, "copies of the training episodes in other colours, for likelihood training", "copies")
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    lpips: Literal["none", "vgg", "alex"] = what("vgg", "trunk of LPIPS, in training, reward and results")

    @property
    def actions_a_frame(self) -> int:
        """Actions between one frame and the next, as the model is given them."""
        return self.frame_skip // self.action_pool
