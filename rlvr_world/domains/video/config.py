"""The data settings of a video run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any, Literal

from rlvr_world.config import at_least, what
from rlvr_world.domains.splits import SplitRule
from rlvr_world.domains.video.envs.specs import PushTSpec, Spec
from rlvr_world.errors import InputError
from rlvr_world.vision.config import SMALLEST, VisualTokenizerConfig

CAMERAS = ("lerobot", "hdf5", "folder")
"""Sources that may hold several views of an episode."""


@dataclass(frozen=True)
class RewardConfig:
    lpips: float = what(1.0, "weight of LPIPS, the perceptual distance (published: 1)")
    mae: float = what(1.0, "weight of the mean absolute error (published: 1)")
    mse: float = what(0.0, "weight of the mean squared error")
    psnr: float = what(0.0, "weight of PSNR, which counts for the prediction", "1/dB")
    ssim: float = what(0.0, "weight of SSIM, which counts for the prediction")
    proprio_mse: float = what(0.0, "weight of proprioception's MSE, in units of each field's range (paper's PushT: 1)")
    repetition: float = what(0.0, "weight of the share of frames equal, token by token, to the frame before")
    action_margin: float = what(0.0, "RL: weight of the share of four predictions under other actions that are worse")
    proper: bool = what(False, "RL, with rl.advantage=none or batch: the energy score by the root of the errors above")
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
    source: Literal["pusht", "rope", "granular", "drawer", "npz", "lerobot", "dino_wm", "folder", "hdf5"] = what(
        "pusht", "an embedded world, played with data.env; or the layout of the episodes at data.path"
    )
    path: str = what("", "episodes: a folder, or for lerobot a hub id", "path")
    camera: str = what("", "which camera (folder: its folder); lerobot, hdf5: several, with commas, come side by side")
    action_dims: tuple[int, ...] = what((), "which numbers of an action the model is given, from 0 on; empty takes all")
    skip_faulty: bool = what(False, "leave out episodes that do not read, and count them; each is read whole once")
    env: Spec = field(default_factory=PushTSpec)
    cache: str = what("~/.cache/rlvr_world/video", "where played episodes are kept, and tokens of all clips", "folder")
    split: EpisodeSplitRule = field(default_factory=EpisodeSplitRule)
    height: int = what(64, "frames are brought to this height", "pixels")
    width: int = what(64, "frames are brought to this width", "pixels")
    fit: Literal["squash", "letterbox", "crop"] = what(
        "squash", "frames of another shape: squashed, whole between black bars, or cut to their middle"
    )
    kind: Literal["single_step", "multi_step"] = what(
        "single_step", "given frames to the next one; or to several, each after its own action, one by one"
    )
    context: int = what(2, "given frames; a compressive tokenizer has one and a far context frame", "frames")
    context_back: int = what(15, "the far context frame of a compressive tokenizer lies at most this far back", "steps")
    horizon: int = what(1, "predicted frames", "frames")
    frame_skip: int = what(5, "steps from one frame to the next; their actions go together", "steps")
    action_pool: int = what(1, "steps whose actions are given as their mean; 1 gives each", "steps")
    short: Literal["drop", "pad"] = what("drop", "episodes shorter than a clip: left out, or padded (published)")
    train_every: int = what(1, "steps from the start of one training clip to the next", "steps")
    closed_loop: int = what(
        0, "RL: clips, at most, that a model imagines before the rewarded one, which goes on from its frames"
    )
    test_every: int = what(0, "the same for validation and test; 0 takes one clip an episode, as published", "steps")
    action_bins: int = what(256, "bins of an action's field", "bins")
    action_ranges: str = what(
        "quantile",
        "ends of the bins: 'minmax', the extremes of the training actions (published rule); 'quantile', their 1 % and "
        "99 % points; or a file of rows low, high (.pth, .json), such as the published ranges of RT-1",
    )
    embeddings: Literal["random", "ordered"] = what(
        "random", "a new model's embeddings begin: random (published); or near each other for codes and bins that are"
    )
    proprio: bool = what(False, "predict proprioception too, in bins like an action's")
    proprio_first: bool = what(False, "write proprioception before its frame, so that what is felt helps the picture")
    same_token: bool = what(False, "of one frame ahead, write a token that stays at its place as one id of its own")
    skip_blocks: bool = what(False, "patches whose token is that of the frame before keep its pixels")
    jittered: int = what(0, "copies of the training episodes in other colours, for likelihood training", "copies")
    encode: Literal["float32", "bfloat16"] = what("float32", "what frames are encoded in; bfloat16 changes some tokens")
    tokenizer: VisualTokenizerConfig = field(default_factory=VisualTokenizerConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    lpips: Literal["none", "vgg", "alex"] = what("vgg", "trunk of LPIPS, in training, reward and results")

    @property
    def actions_a_frame(self) -> int:
        """Actions between one frame and the next, as the model is given them."""
        return self.frame_skip // self.action_pool


def check_numbers(data: VideoConfig) -> None:
    """Raises InputError for numbers that no clip, tokenizer or reward could go with."""
    made, least, halved = data.tokenizer, SMALLEST[data.lpips], 2 ** max(0, len(data.tokenizer.widths) - 1)
    at_least(data, "data.", height=least, width=least, context=1, horizon=1, context_back=0, frame_skip=1, jittered=0)
    at_least(data, "data.", action_pool=1, train_every=1, test_every=0, action_bins=2, closed_loop=0)
    at_least(made, "data.tokenizer.", latent=1, groups=1, patch_width=0, patch=1, segment=1, reach=0, gan=0)
    later, side = 1 + (made.kind == "compressive"), max(data.height, data.width)
    similar = data.reward.psnr or data.reward.ssim or data.reward.repetition
    halves, deep = f"a multiple of {halved}, as data.tokenizer.widths halve", 2**made.discriminator_depth
    rules: list[tuple[str, object, str]] = [
        ("camera", not data.camera or data.source in CAMERAS, f"none with data.source={data.source}, of one view"),
        ("tokenizer.kind", data.kind == "multi_step" or made.kind == "frame", "frame with data.kind=single_step"),
        ("action_pool", data.frame_skip % data.action_pool == 0, f"a divisor of data.frame_skip={data.frame_skip}"),
        ("height", made.source or data.height % halved == 0, halves),
        ("width", made.source or data.width % halved == 0, halves),
        ("reward.lpips", data.lpips != "none" or not data.reward.lpips, "0 with data.lpips=none"),
        ("reward.proprio_mse", data.proprio or not data.reward.proprio_mse, "0 with data.proprio=false"),
        ("reward.proper", not (data.reward.proper and similar), "false with weights of psnr, ssim or repetition"),
        ("closed_loop", made.kind == "frame" or not data.closed_loop, "0 with a compressive tokenizer"),
        ("same_token", data.horizon == 1 or not data.same_token, "false with data.horizon above 1"),
        ("proprio_first", data.proprio or not data.proprio_first, "false with data.proprio=false"),
        ("split.every", data.split.kind == "fraction" or data.split.every >= 3, "at least 3"),
        ("tokenizer.widths", made.widths and not any(w % made.groups for w in made.widths), "multiples of the groups"),
        ("tokenizer.levels", made.levels and min(made.levels) > 1, "numbers of at least 2"),
        ("tokenizer.crop", 0 < made.crop <= 1, "a share above 0 and at most 1"),
        ("tokenizer.segment", made.segment >= later, f"at least {later} of a {made.kind} one"),
        ("tokenizer.reach", not made.reach or made.reach >= made.segment - 1, "0, or as many as later frames"),
        ("tokenizer.discriminator_depth", made.source or not made.gan or deep < side, f"2 to its power below {side}"),
    ]
    for name, sound, wanted in rules:
        if not sound:
            raise InputError(f"data.{name}: expected {wanted}, got {attrgetter(name)(data)}")
