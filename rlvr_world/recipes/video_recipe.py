"""What every video recipe does: clips, the visual tokenizer and its tokens, a new model, the domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset

from rlvr_world.config import Config, check_shape
from rlvr_world.domains.row_files import skipping
from rlvr_world.domains.scene import start_rows
from rlvr_world.domains.video.augmentation import Jittered
from rlvr_world.domains.video.codec import (
    check_ranges,
    codec_of,
    fit_codec,
    order_embeddings,
    planned_layout,
    read_ranges,
)
from rlvr_world.domains.video.config import VideoConfig, check_numbers
from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.domains.video.envs.collect import read_labelled
from rlvr_world.domains.video.envs.played import FIELDS, real_world
from rlvr_world.domains.video.episodes import read_question
from rlvr_world.domains.video.inspect import inspect
from rlvr_world.domains.video.layout import Codec
from rlvr_world.domains.video.pictures import strip
from rlvr_world.domains.video.readers.npz import NpzEpisodes
from rlvr_world.domains.video.reconstruction import flips, measure_reconstruction, round_trip
from rlvr_world.domains.video.scene import VideoScene
from rlvr_world.domains.video.segments import Segments
from rlvr_world.domains.video.splits import clips_of, counted, opened, parts, whole_episodes
from rlvr_world.domains.video.token_cache import TokenCache
from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import bootstrap
from rlvr_world.models.device import check_device, compute_dtype, shown_in
from rlvr_world.models.head import Model
from rlvr_world.models.loading import CODEC, create_model
from rlvr_world.models.text_tokenizer import TextTokenizer
from rlvr_world.recipes import FirstStage, Recipe, Splits
from rlvr_world.recipes.goals import goals
from rlvr_world.recipes.recorded import recorded_video
from rlvr_world.recipes.tasks import Labelled, Look, Reach, Trial, Walk
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.training.visual_tokenizer import VisualTokenizerTraining, create_visual_tokenizer
from rlvr_world.types import Finding, Judged, Picture, Scene, Transition, World
from rlvr_world.vision.config import VisualTokenizerConfig
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.loading import load_visual_tokenizer
from rlvr_world.vision.lpips import LPIPS, load_lpips
from rlvr_world.vision.metrics import FrameMetrics

METRICS = ("mae", "mse", "psnr", "ssim", "lpips")
"""What ``study metrics`` rewards one at a time (paper, figure 4c)."""
VALIDATED = 4
"""Batches that validation of the visual tokenizer looks at."""
VISUAL_TOKENIZER = "visual_tokenizer"
"""Beside a model: the tokenizer of its frames."""
POLICIES = {f"cloned {demos}": f"clone:{demos}" for demos in (120, 40, 12, 5, 2)}
POLICIES |= {"briefly cloned": "clone:120:60", "noisy": "noisy:0.7:clone:120", "random": "random"}
"""From good to useless: by demonstrations, by training, by noise on their actions."""


class VideoRecipe(Recipe):
    question = staticmethod(read_question)

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    def config(self) -> Config:
        return self._config()

    def splits(self, config: Config) -> Splits:
        data, seed = config.data, config.seed
        found = parts(data)
        episodes, chosen = found["train"]
        train = clips_of(data, (episodes, chosen), seed)
        copies = [(Jittered(episodes, n + 1, seed), chosen) for n in range(data.jittered)]
        versions: list[Any] = [train, *(clips_of(data, copy, seed) for copy in copies)]
        sft: Any = ConcatDataset(versions) if copies else train
        valid, test = (clips_of(data, found[name], seed, held_out=True) for name in ("valid", "test"))
        made = Splits(sft, train, valid, test, left_out=counted(found, (train, valid, test)))
        if not data.closed_loop:
            return made
        longer = replace(data, horizon=data.horizon * (1 + data.closed_loop))
        drawn, watched = clips_of(longer, found["train"], seed), clips_of(longer, found["valid"], seed, held_out=True)
        return replace(made, epoch=lambda seed, epoch: drawn, closed_loop=watched)

    def check_config(self, config: Config) -> None:
        data: VideoConfig = config.data
        check_numbers(data)
        _lpips(config)
        if data.reward.action_margin and config.rl.prompts < 2:
            wanted = "at least 2, as data.reward.action_margin takes actions of others"
            raise InputError(f"rl.prompts: expected {wanted}, got 1")
        if data.reward.proper and config.rl.advantage not in ("none", "batch"):
            wanted = "none or batch (to divide each group by its own deviation pays for writing what is likeliest)"
            raise InputError(f"rl.advantage: with data.reward.proper expected {wanted}, got {config.rl.advantage}")
        if config.model.source != "scratch":
            return
        check_shape(config.model)
        if data.tokenizer.source:
            loaded, wanted = load_visual_tokenizer(data.tokenizer.source), data.tokenizer.kind
            if (kind := "frame" if isinstance(loaded, FrameTokenizer) else "compressive") != wanted:
                raise InputError(f"data.tokenizer.source: expected {wanted}, as data.tokenizer.kind says, got {kind}")

    def rehearse(self, config: Config, splits: Splits, stage: VisualTokenizerTraining) -> VideoDomain:
        """The untrained tokenizer has the shapes of the trained one, and its tokens are kept nowhere."""
        data: VideoConfig = config.data
        cache = TokenCache(stage.tokenizer, (data.height, data.width), Path(data.cache), data.fit)
        return _domain(config, fit_codec(data, parts(data)["train"], cache), cache)

    def first_stage(self, config: Config) -> FirstStage | None:
        """The visual tokenizer, unless the recipe names one or the model that training starts from has its own."""
        settings = config.data.tokenizer
        if settings.source or config.model.source != "scratch":
            return None
        made, judged = partial(_visual_tokenizer_training, config), partial(_validate_visual_tokenizer, config)
        return FirstStage("tokenizer", settings.steps, settings.save_every, settings.eval_every, made, judged)

    def write_world(self, config: Config, folder: Path, start: Path | None, run: Path) -> Config:
        """The visual tokenizer: the one that the recipe names, that of the start, or the one trained in the run."""
        trained = sorted((run / "tokenizer").glob("step-*"))[-1:]
        source = _visual_tokenizer(config, start and start / VISUAL_TOKENIZER, *trained)
        load_visual_tokenizer(source).save_pretrained(str(folder / VISUAL_TOKENIZER))
        data = config.data
        return replace(config, data=replace(data, tokenizer=replace(data.tokenizer, source="")))

    def prepare(self, config: Config, splits: Splits, world: Path, run: Path) -> None:
        """The table of what the visual tokenizer loses, and tokens; of training clips where likelihood training will
        see them all, for else they are made as they are drawn (RL from a published model sees few)."""
        cache, file = _cache(config, world), run / "tokenizer" / "reconstruction.json"
        seen = config.sft.steps * config.sft.batch >= len(splits.sft)
        for name in ("sft", "valid", "test")[not seen :]:
            cache.build(getattr(splits, name), f"tokens: {name}")
        if ranks.first() and not file.exists():
            values, measured = measure_reconstruction(cache, FrameMetrics(_lpips(config)), splits.test)
            metrics = {name: bootstrap(numbers).as_dict() for name, numbers in values.items()}
            write_whole(file, json.dumps({**measured, "lpips": config.data.lpips, "metrics": metrics}))

    def new_model(self, config: Config, splits: Splits, world: Path | None) -> tuple[Model, None]:
        """A model over the tokens of frames and actions, whose config.json holds the codec."""
        cache = _cache(config, world)
        codec = fit_codec(config.data, parts(config.data)["train"], cache)
        shape = replace(config.model, context=codec.layout.max_length)
        model = create_model(shape, codec.layout.vocabulary, seed=config.seed)
        if config.data.embeddings == "ordered":
            order_embeddings(model, codec.layout, cache, config.seed)
        setattr(model.config, CODEC, asdict(codec))
        return model, None

    def lengths(self, config: Config) -> tuple[int, int, int]:
        layout = planned_layout(config.data)
        return layout.vocabulary, layout.prompt_length, layout.max_length - layout.prompt_length

    def adopt(self, config: Config, model: Model, world: Path) -> None:
        data: VideoConfig = config.data
        if data.proprio:
            raise InputError(f"recipe {config.recipe}: its models predict proprioception, whose ranges are not known")
        ranges = read_ranges(Path(data.action_ranges).expanduser(), data.action_bins)
        codec = codec_of(data, _cache(config, world), ranges)
        ids, room = model.config.vocab_size, model.config.max_position_embeddings
        if ids != codec.layout.vocabulary or room < codec.layout.max_length:
            wanted = f"{codec.layout.vocabulary} token ids and room for {codec.layout.max_length} of them"
            got = f"got {ids} and {room}; check --recipe and --tokenizer"
            raise InputError(f"model {config.model.source}: expected {wanted}, {got}")
        setattr(model.config, CODEC, asdict(codec))

    def domain(self, config: Config, model: Model, tokenizer: TextTokenizer | None, world: Path | None) -> VideoDomain:
        stored = getattr(model.config, CODEC, None)
        if stored is None:
            mend = "name a model that a video recipe trained, or `rlvr-world adopt` a published one"
            got = f"its config.json has no {CODEC}, so nothing says what its tokens mean"
            raise InputError(f"model {config.model.source}: {got}; {mend}")
        codec = Codec.from_json(stored, f"model {config.model.source}: config.json: {CODEC}")
        codec.check_model(model.config.vocab_size)
        return _domain(config, codec, _cache(config, world))

    def check_data(self, config: Config, domain: Any) -> None:
        check_ranges(config.data, parts(config.data)["test"], domain.codec)

    def unread(self, row: Transition) -> Iterator[str]:
        for clip in (row.state, row.next_state):
            try:
                clip.read()
            except InputError as error:
                yield str(error)

    def findings(self, domain: Any, rows: Sequence[Transition], judged: Judged) -> list[Finding]:
        return [*round_trip(domain, rows), *flips(domain, rows, judged)]

    def scene(self, config: Config, domain: Any) -> Scene:
        choose = start_rows(lambda: self.splits(config).test)
        real = None if config.data.source not in FIELDS else real_world(config.data, live=1)

        def start(seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
            if real and "row" not in options:
                past, told = real.start(seed, options)
                return past.seen, told
            row = choose(seed, options)
            return row, {"row": row.id}

        count = domain.layout.action_width // config.data.actions_a_frame
        fields = FIELDS[config.data.source][0].split() if real else [f"action-{i + 1}" for i in range(count)]
        return VideoScene(domain, start, fields)

    def real(self, config: Config) -> World:
        return real_world(config.data) if config.data.source in FIELDS else super().real(config)

    def tasks(self, config: Config) -> dict[str, Reach]:
        """Goals that are frames, of episodes of the embedded worlds that nothing was trained on."""
        if config.data.source not in FIELDS:
            return {}
        real = real_world(config.data, live=max(16, config.plan.simulator * config.plan.candidates))
        return {"goal frames": Reach(real, partial(goals, config.data, real), config.data.actions_a_frame)}

    def recorded(self, config: Config) -> tuple[list[Walk], Look]:
        return recorded_video(config.data, config.seed)

    def first_frames(self, config: Config) -> dict[str, Transition]:
        """A name is followed by the instruction, where the file has one."""
        firsts = {}
        for row in whole_episodes(config.data, parts(config.data)["test"]):
            clip = replace(row.state, steps=row.state.steps[:1])
            told = clip.episodes.instruction(clip.episode) if isinstance(clip.episodes, NpzEpisodes) else ""
            firsts[f"{row.world} {told}".rstrip()] = replace(row, state=clip)
        return firsts

    def trials(self, config: Config, domain: Any) -> dict[str, Trial]:
        """Of the embedded worlds, the drawer has tasks, and PushT with ``data.env.aim=home``."""
        data, env = config.data, config.data.env
        if data.source not in ("drawer", "pusht") or not (tasks := env.tasks):
            return {}
        real = self.real(config)
        changed = real_world(data, changed=True) if data.source == "drawer" else None  # the others have one look

        def labelled(which: int, part: str) -> Labelled:
            episodes, chosen = parts(data)[part]
            files = [episodes.files[n] for n in chosen if n % len(tasks) == which]
            if not files:
                wanted = [*tasks.values()][which]
                raise InputError(f"data: no {part} episode is of the task, {wanted}; raise data.env.episodes")
            return Labelled(*read_labelled(files, data.frame_skip, data.action_pool))

        def trial(n: int, instruction: str) -> Trial:
            start = lambda number: {"episode": (env.episodes + number) * len(tasks) + n}  # noqa: E731
            about = real, start, (env.length - 1) // data.frame_skip, instruction, partial(labelled, n)
            return Trial(*about, domain.round_trip, POLICIES, changed)

        return {task: trial(n, tasks[task]) for n, task in enumerate(tasks)}

    def shown(self, state: Any) -> Picture:
        """Its frames side by side."""
        return Picture(strip(torch.from_numpy(state.read()).movedim(-1, 1).float() / 255))

    def inspect(self, config: Config, out: Path) -> str:
        return inspect(opened(config.data, skipping(config.data.skip_faulty)[0]), out)

    def rewarded_by(self, config: Config) -> dict[str, Config]:
        reward = config.data.reward
        nothing = replace(reward, **{f.name: 0.0 for f in fields(reward) if isinstance(f.default, float)})
        known = [metric for metric in METRICS if metric != "lpips" or config.data.lpips != "none"]
        return {m: replace(config, data=replace(config.data, reward=replace(nothing, **{m: 1.0}))) for m in known}

    def protocol(self, config: Config) -> dict[str, Any]:
        data: VideoConfig = config.data
        return {
            "domain": "video",
            "frames": [data.height, data.width, data.fit],
            **{name: getattr(data, name) for name in ("kind", "horizon", "frame_skip", "lpips", "skip_blocks")},
            "reward": {k: v for k, v in asdict(data.reward).items() if k not in ("action_margin", "proper")},
            "split": data.split.describe(),
            "resample": "world",
        }


def _domain(config: Config, codec: Codec, cache: TokenCache) -> VideoDomain:
    metrics = FrameMetrics(None if config.data.lpips == "none" else partial(_lpips, config))
    return VideoDomain(codec, cache, metrics, config.data.reward, config.data.skip_blocks, config.data.closed_loop)


def _visual_tokenizer_training(config: Config) -> VisualTokenizerTraining:
    data, device = config.data, check_device(config.model.device)
    new = create_visual_tokenizer(data.tokenizer, data.height, data.width, config.seed).to(device)
    segments, dtype = _segments(config, "train", data.tokenizer), compute_dtype(config.model.precision, device)
    return VisualTokenizerTraining(new, data.tokenizer, segments, _lpips(config), config.seed, dtype)


def _validate_visual_tokenizer(config: Config, stage: VisualTokenizerTraining) -> dict[str, float]:
    held = _segments(config, "valid", replace(config.data.tokenizer, jitter=False, crop=1.0))
    return stage.validate([held(i) for i in range(VALIDATED)], FrameMetrics(stage.lpips))


def _segments(config: Config, part: str, settings: VisualTokenizerConfig) -> Segments:
    data: VideoConfig = config.data
    size = (data.height, data.width)
    return Segments(*parts(data)[part], size, data.frame_skip, settings, config.seed, data.fit)


def _lpips(config: Config) -> LPIPS | None:
    if config.data.lpips == "none":
        return None
    lpips, device = load_lpips(config.data.lpips), check_device(config.model.device)
    lpips.trunk.to(shown_in(config.model.precision, device))
    return lpips.to(device)


def _visual_tokenizer(config: Config, *own: Path | None) -> str:
    """Where the frozen visual tokenizer lies: where the recipe says, else the first of ``own`` that is there."""
    if config.data.tokenizer.source:
        return str(config.data.tokenizer.source)
    for folder in own:
        if folder and folder.is_dir():
            return str(folder)
    mend = "name its folder; a published model is not adopted yet: `rlvr-world adopt` it first"
    raise InputError(f"data.tokenizer.source: a video model needs its visual tokenizer; {mend}")


def _cache(config: Config, world: Path | None) -> TokenCache:
    """The frozen visual tokenizer of a model, with the tokens it gave."""
    data: VideoConfig = config.data
    source = _visual_tokenizer(config, world and world / VISUAL_TOKENIZER)
    kept = Path(data.cache).expanduser() / "tokens" / data.camera.replace("/", "-")  # cameras may begin alike
    types = (config.model.device, config.model.precision, data.encode)
    return _opened(source, (data.height, data.width), kept, data.fit, types)


@lru_cache(maxsize=1)
def _opened(source: str, size: tuple[int, int], kept: Path, fit: str, types: tuple[Any, Any, str]) -> TokenCache:
    """Opened once: the fingerprint of a large tokenizer and the index of many tokens take their time."""
    cache = TokenCache(load_visual_tokenizer(source).to(device := check_device(types[0])), size, kept, fit)
    cache.keeps, cache.encodes, cache.decodes = True, getattr(torch, types[2]), shown_in(types[1], device)
    return cache
