"""How far a model can be followed: imagined open loop beside the real world, k steps ahead."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world import recipes
from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import Interval, bootstrap, correlation, of_mean
from rlvr_world.evaluation.plots import save_lines
from rlvr_world.evaluation.tables import markdown
from rlvr_world.recipes.tasks import Walk
from rlvr_world.runs import runner
from rlvr_world.runs.folder import models_of
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.sessions.session import Session, Step, step_together
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track
from rlvr_world.types import World
from rlvr_world.vision.fvd import SHORTEST, features, frechet, load_i3d, of_halves

NO_CHANGE, RECORDED, LABELS = "no change", "recorded", ("steps ahead", "nearness to the real world")
OUTCOMES = LABELS[0], "outcome right"
LENGTH = 16
"""Frames of a film, as is usual; ``SHORTEST`` where fewer than four films have so many."""


def study_rollouts(run: Path, depth: int, starts: int) -> str:
    """For each model of a run, after 1 to ``depth`` imagined steps, how near what is seen is to the real world.

    Random walks in the real world begin at ``starts`` seeds; each model is told where they begin and what is done, and
    never what came of it. Text: share of states that are right, letter by letter; pages: F1 of the lines and, in
    ``rollouts-outcomes``, the share where it is right how the episode stands; video: mean squared error of pixels, less
    is better. Intervals over worlds, such as games. Where a stage has several seeds, also their mean, and its
    difference from SFT and the control. Also ``RUN/studies/rollouts.json`` and ``.png``.
    """
    config = runner.stored_config(run)
    models, real = models_of(run), recipes.find(config.recipe).real(config)
    walks: list[Walk] = []
    near: dict[str, list[Any]] = {}
    stands: dict[str, list[Any]] = {}
    for name, model in models.items():
        world = Imagined(model, attempts=1)
        if not walks:
            walks = [_walk(real, world.action_space, seed, depth) for seed in track(range(starts), "walking", "walks")]
            real.close()
            near[NO_CHANGE] = [[nearness(walk.seen[0], true) for true in walk.seen[1:]] for walk in walks]
            stands[NO_CHANGE] = [[float(not over) for over, _ in walk.stands] for walk in walks]
        pairs = [*zip(imagined(world, walks, depth), walks, strict=True)]
        near[name] = [[*map(nearness, _frames(film), walk.seen[1:])] for film, walk in pairs]
        stands[name] = [[*map(_stands_so, film, walk.stands)] for film, walk in pairs]
    stem, worlds, at = run / "studies" / "rollouts", [walk.world for walk in walks], range(1, depth + 1)
    text = told(stem, near, worlds, at, LABELS)
    if not _is_page(walks[0].seen[0]):
        return text
    return f"{text}\n\noutcomes\n\n{told(stem.with_name('rollouts-outcomes'), stands, worlds, at, OUTCOMES)}"


def told(stem: Path, scores: dict[str, Any], worlds: Sequence[str], at: Sequence[Any], labels: Sequence[str]) -> str:
    """What each model's ``scores`` [unit][at] (shorter where a unit ends) come to: in ``<stem>.json``, as a table, and
    drawn, where both axes have labels."""
    answers = _summed(scores, worlds, len(at), _share)
    if len(labels) > 1:
        _draw(stem.with_suffix(".png"), answers, labels, at)
    write_whole(stem.with_suffix(".json"), json.dumps(answers, indent=1))
    return _table(answers, labels[0], at)


def study_replay(run: Path, episodes: int) -> str:
    """For each model of a run, held-out recorded episodes imagined to their end, from their first frames and actions.

    By step, errors, the share of pixels that move, and how what a probe tells correlates with what it tells of the
    recording; beside the first frame kept. Intervals over episodes; FVD of all films together. Also
    ``RUN/studies/replay.json``, ``fvd.json`` and pictures.
    """
    config, models = runner.stored_config(run), models_of(run)
    recorded, look = recipes.find(config.recipe).recorded(config)
    walks = recorded[: episodes or None]
    films = {RECORDED: [walk.seen for walk in walks], NO_CHANGE: [walk.seen[:1] * len(walk.seen) for walk in walks]}
    depth = max(len(walk.actions) for walk in walks)
    for name, model in models.items():
        after = imagined(Imagined(model, attempts=1), walks, depth)
        films[name] = [[walk.seen[0], *_frames(film)] for walk, film in zip(walks, after, strict=True)]
    looks = {name: [look(*pair) for pair in zip(each, films[RECORDED], strict=True)] for name, each in films.items()}
    measures, told = looks[RECORDED][0]
    answers: dict[str, Any] = {what: _correlated(looks, what, depth) for what in told}
    for measure in measures:
        scores = {name: [one[measure] for one, _ in each] for name, each in looks.items()}
        answers[measure] = _summed(scores, [walk.world for walk in walks], depth, bootstrap)
        _draw(run / "studies" / f"replay-{measure}.png", answers[measure], (LABELS[0], measure), range(1, depth + 1))
    write_whole(run / "studies" / "replay.json", json.dumps(answers, indent=1))
    fvd = told_fvd(films, RECORDED, run / "studies" / "fvd.json")
    return _tables(answers) + (f"\n\n{fvd}" if fvd else "")


def _correlated(looks: Mapping[str, Sequence[Any]], what: str, depth: int) -> dict[str, list[dict[str, Any]]]:
    """Over the episodes that are as long, after each step: what is told of the frames, and of the recording's."""

    def at(name: str, step: int) -> list[float]:
        return [told[what][step] for _, told in looks[name] if len(told[what]) > step]

    return {name: [correlation(at(name, k), at(RECORDED, k)).as_dict() for k in range(depth)] for name in looks}


def _tables(answers: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> str:
    """A replay as Markdown: of each measure a table with some steps, and the last."""
    parts = []
    for measure, of in answers.items():
        at = [k for k in (1, 2, 4, 8, 16) if k < len(of[RECORDED])] + [len(of[RECORDED])]
        parts += [measure, _table({name: [one[k - 1] for k in at] for name, one in of.items()}, LABELS[0], at)]
    return "\n\n".join(parts)


def told_fvd(films: Mapping[str, Sequence[Sequence[Any]]], real: str, file: Path) -> str:
    """For each name but ``real`` the FVD of its films from the real ones, as Markdown, and in ``file``; nothing, and
    stderr says why, where it cannot be measured. All films are cut to one length, their first frame is given. With it
    of one half of the real films from the other: where nothing differs, few films are far apart too."""
    lengths = [len(film) for film in films[real]]
    length = LENGTH if sum(have >= LENGTH for have in lengths) >= 4 else SHORTEST
    long = [i for i, have in enumerate(lengths) if have >= length]
    try:
        if len(long) < 4:
            raise InputError(f"expected at least 4 episodes of {SHORTEST} frames, got {len(long)}")
        i3d = load_i3d()
    except InputError as error:
        print(f"FVD left out: {error}", file=sys.stderr)
        return ""
    seen = {}
    for name in track(list(films), "FVD", "models"):
        seen[name] = features(i3d, [np.stack([*map(_pixels, films[name][i][:length])]) for i in long])
    least, most = of_halves(seen[real])
    far = {name: frechet(seen[real], of) for name, of in seen.items() if name != real}
    told = {"films": len(long), "frames": length, "halves": [least, most], "fvd": far}
    write_whole(file, json.dumps(told, indent=1))
    head = f"FVD of {len(long)} films of {length} frames (compare models of one table alone: few films add to it)"
    halves = [f"{real}, one half from the other ({len(long) // 2} films each)", f"{least:.4g} to {most:.4g}"]
    return f"{head}\n\n{markdown([['', 'FVD'], halves, *([name, f'{value:.4g}'] for name, value in far.items())])}"


def _walk(real: World, space: Any, seed: int, depth: int) -> Walk:
    """At random: of what can be done, where the world says it, else of all actions of the model's."""
    session, rng = Session(real, depth), random.Random(f"walk {seed}")
    seen, info = session.reset(seed=seed)
    space.seed(seed)
    world = str(next((info[name] for name in ("game", "task", "episode") if name in info), seed))
    actions, frames, stands = list[Any](), [seen], list[tuple[bool, bool]]()
    while not session.over:
        action = rng.choice(info["commands"]) if info.get("commands") else space.sample()
        seen, reward, ended, _, info = session.step(action)
        actions.append(action)
        frames.append(seen)
        stands.append((ended, reward > 0))
    return Walk(actions, frames, world, stands=stands)


def imagined(world: World, walks: Sequence[Walk], depth: int) -> list[list[Step | None]]:
    """Of each walk what comes of each action, in all at most ``depth`` and all walks together; None from where a
    model's answer does not read, or says that the episode has ended."""
    sessions = [Session(world, depth) for _ in walks]
    for seed, (session, walk) in enumerate(zip(sessions, walks, strict=True)):
        session.reset(seed=seed, options={"state": walk.seen[0] if walk.start is None else walk.start})
    films: list[list[Step | None]] = [[] for _ in walks]
    for k in range(depth):
        there = [i for i, walk in enumerate(walks) if len(walk.actions) > k]
        live = [i for i in there if not sessions[i].over]
        steps = step_together([sessions[i] for i in live], [walks[i].actions[k] for i in live])
        read = {i: step for i, step in zip(live, steps, strict=True) if "malformed" not in step.info}
        for i in there:
            films[i].append(read.get(i))
    return films


def _frames(film: Sequence[Step | None]) -> list[Any]:
    return [None if step is None else step.observation for step in film]


def _stands_so(step: Step | None, true: tuple[bool, bool]) -> float:
    return float(step is not None and (step.terminated, step.reward > 0) == true)


def _is_page(seen: Any) -> bool:
    return isinstance(seen, dict) and "observation" in seen


def nearness(seen: Any, true: Any) -> float:
    """Text: 1 where it is the same; a page: F1 of its lines; frames: mean squared error in [0, 1]. 0 of nothing."""
    if seen is None:
        return 0.0
    if isinstance(true, str):
        return float(seen == true)
    if _is_page(true):
        one, other = (Counter(page["observation"].splitlines()) for page in (seen, true))
        return 2 * (one & other).total() / max(1, one.total() + other.total())
    return float(np.square((_pixels(seen).astype(float) - _pixels(true)) / 255).mean())


def _pixels(seen: Any) -> np.ndarray:
    pixels: np.ndarray = seen["pixels"] if isinstance(seen, dict) else seen
    return pixels


def _summed(
    scores: Mapping[str, Sequence[Any]], worlds: Sequence[str], depth: int, interval: Callable[..., Interval]
) -> dict[str, list[dict[str, Any]]]:
    """For each model an interval for each number of steps; where a stage has several seeds also of their mean; and what
    RL and control are from SFT and each other. ``scores``: a number a step of each walk."""
    followed, means = dict(scores), dict(scores)
    for stage in ("rl", "control"):
        seeds_of = [walks for name, walks in scores.items() if name.startswith(f"{stage}/")]
        means |= {stage: [np.mean(walk, axis=0) for walk in zip(*seeds_of, strict=True)]} if seeds_of else {}
        followed |= {stage: means[stage]} if len(seeds_of) > 1 else {}
    answers = {name: _by_step(walks, worlds, depth, interval) for name, walks in followed.items()}
    for one, other in (("rl", "sft"), ("control", "sft"), ("rl", "control")):
        if one in means and other in means:
            apart = [np.subtract(*pair) for pair in zip(means[one], means[other], strict=True)]
            answers[f"{one} - {other}"] = _by_step(apart, worlds, depth, bootstrap)
    return answers


def _by_step(
    scores: Sequence[Sequence[float]], worlds: Sequence[str], depth: int, interval: Callable[..., Interval]
) -> list[dict[str, Any]]:
    long = ([i for i, row in enumerate(scores) if len(row) > k] for k in range(depth))
    return [
        interval([scores[i][k] for i in some], np.array([worlds[i] for i in some])).as_dict()
        for k, some in enumerate(long)
        if some
    ]


def _draw(
    file: Path, answers: Mapping[str, Sequence[dict[str, Any]]], labels: Sequence[str], at: Sequence[int]
) -> None:
    """A line for each model, and of several seeds for their mean alone."""
    shown = [n for n in answers if " - " not in n and ("/" not in n or n.split("/")[0] not in answers)]
    file.parent.mkdir(exist_ok=True)
    save_lines(file, {name: answers[name] for name in shown}, labels, at)


def _share(values: Sequence[float], worlds: np.ndarray) -> Interval:
    """Wilson for a share of walks of which each has a world of its own, else bootstrap over worlds."""
    alone = {*values} <= {0.0, 1.0} and len(np.unique(worlds)) == len(worlds)
    return of_mean(np.array(values), alone, None if alone else worlds)


def _table(answers: Mapping[str, Sequence[dict[str, Any]]], label: str, at: Sequence[Any]) -> str:
    """Means and intervals as Markdown: a row for each model, a column for each of ``at``."""

    def cell(one: dict[str, Any]) -> str:
        around = "" if one["low"] is None else f" [{one['low']:.3g}, {one['high']:.3g}]"
        return f"{one['mean']:.3g}{around}"

    rows = [[name, *map(cell, intervals)] for name, intervals in answers.items()]
    return markdown([[label, *map(str, at[: max(map(len, rows)) - 1])], *rows])
