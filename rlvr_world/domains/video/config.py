"""The data settings of a video run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlvr_world.config import what
from rlvr_world.domains.splits import SplitRule
from rlvr_world.domains.video.envs.specs import PushTSpec, Spec
from rlvr_world.vision.config import VisualTokenizerConfig


@dataclass(frozen=True)
class RewardConfig:
    lpips: float = what(1.0, "weight of LPIPS, the perceptual distance (published: 1)")
    mae: float = what(1.0, "weight of the mean absolute error (published: 1)")
    mse: float = what(0.0, "weight of the mean squared error")
    psnr: float = what(0.0, "weight of PSNR, which counts for the prediction", "1/dB")
    ssim: float = what(0.0, "weight of SSIM, which counts for the prediction")
    proprio_mse: float = what(0.0, "weight of proprioception's MSE, in units of each field's range (paper's PushT: 1)")
    repetition: float = what(0.0, "weight of the share of frames equal, token by token, to the frame before")
    aggregate: Literal["mean", "last", "discount"] = what(
        "mean", "over the frames of a clip: their mean, the last one, or a mean with weights 0.9^k"
    )
    target: Literal["frame", "round_trip"] = what(
        "frame", "compare with what the camera saw (published), or with the best that the tokenizer can make of it"
    )


@dataclass(frozen=True)
class EpisodeSplitRule(SplitRule):
    """How episodes fall into train, valid and test; stored with every result."""

    valid: float = what(0.1, "share of them for validation", "fraction")
    kind: Literal["every_nth", "fraction"] = what(
        "fraction",
        "'fraction': each name falls by its own hash, so that more episodes move none of the old; "
        "'every_nth': of the sorted names, i % every == 0 is test (published) and i % every == every // 2 is valid",
    )
    every: int = what(100, "of every_nth: one episode in so many for test, one for valid", "episodes")

    def describe(self) -> dict[str, Any]:
        """The rule and the settings that it goes by, for the protocol of a result."""
        mine = ("every",) if self.kind == "every_nth" else ("test", "valid", "seed")
        return {"kind": self.kind, **{key: value for key, value in asdict(self).items() if key in mine}}


@dataclass(frozen=True)
class VideoConfig:
    source: Literal["pusht", "rope", "granular", "drawer", "npz", "lerobot", "dino_wm", "folder"] = what(
        "pusht", "an embedded world, played with data.env; or the layout of the episodes at data.path"
    )
    path: str = what("", "episodes: a folder, or for lerobot a hub id", "path")
    camera: str = what("", "lerobot: which of several cameras")
    env: Spec = field(default_factory=PushTSpec)
    cache: str = what(
        "~/.cache/rlvr_world/video", "where played episodes are kept, and the tokens of all clips", "folder"
    )
    split: EpisodeSplitRule = field(default_factory=EpisodeSplitRule)
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
    skip_blocks: bool = what(False, "patches whose token is that of the frame before keep its pixels")
    jittered: int = what(0, "copies of the training episodes in other colours, for likelihood training", "copies")
    tokenizer: VisualTokenizerConfig = field(default_factory=VisualTokenizerConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    lpips: Literal["none", "vgg", "alex"] = what("vgg", "trunk of LPIPS, in training, reward and results")

    @property
    def actions_a_frame(self) -> int:
        """Actions between one frame and the next, as the model is given them."""
        return self.frame_skip // self.action_pool
