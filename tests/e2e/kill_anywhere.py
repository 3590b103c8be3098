"""Kill a tiny run at random instants, resume it, and compare every byte with the run that was left alone.

    python tests/e2e/kill_anywhere.py --kills 200

Six stages are killed: collection, SFT, RL and evaluation of a text run, tokenizer training of a video run, and, where
there is a Chromium, the collection of pages of a web run: after each kill the file of rows is whole or absent. A chain
starts from the run folder as it was when its stage began; a child process, forked when all is imported, goes on with
the run and gets SIGKILL after a delay that the seed draws; the next child resumes. When the stage has come to its end,
the run folder (checkpoints with manifests, metrics.jsonl, kept rollouts, results and samples) and the collected rows
must be those of the uninterrupted run. Only what the clock says may differ: timings.jsonl. The report is left out:
every run makes it anew from these files.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import textworld.generator  # noqa: F401 - children find it imported

import rlvr_world.domains.video.domain
import rlvr_world.training.visual_tokenizer  # noqa: F401 - as above
from rlvr_world.config import Config
from rlvr_world.domains.text_game.envs import textworld as text_env
from rlvr_world.domains.web_page.envs.chromium import find_chromium
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import find, web_page
from rlvr_world.runs import runner

SMALL = """threads=1 model.layers=1 model.hidden=32 model.heads=2 model.precision=float32 model.device=cpu sft.steps=6
sft.batch=4 sft.save_every=2 sft.eval_every=3 rl.steps=5 rl.prompts=2 rl.group=3 rl.save_every=2 rl.eval_every=2
rl.drop_zero_variance=false control.enabled=false eval.valid_rows=4 eval.rows=8 guards.still_steps=0"""
TEXT = """data.env.games=1 data.env.rows_per_game=40 model.vocabulary=320 data.max_prompt=2000 data.max_response=12
data.reward=task_specific plan.starts=1 plan.depth=1"""
VIDEO = """data.source=npz data.height=16 data.width=16 data.frame_skip=1 data.action_pool=1
data.test_every=3 data.split.test=0.3
data.split.valid=0.3 data.lpips=none data.reward.lpips=0 data.tokenizer.widths=32,32 data.tokenizer.groups=8
data.tokenizer.latent=8 data.tokenizer.steps=8 data.tokenizer.batch=2 data.tokenizer.save_every=2
data.tokenizer.eval_every=4 data.tokenizer.gan=0.1 data.tokenizer.gan_start=0.5 data.tokenizer.discriminator_depth=2
data.tokenizer.discriminator_width=8"""
WEB = """data.env.tasks=click-option,use-autocomplete data.env.episodes=4 data.env.steps=2 model.vocabulary=320
data.split.test=0.3 data.split.valid=0.2 data.split.worlds=0 data.max_prompt=3000 data.max_response=12"""
WHOLE = (
    ("demo", TEXT, ("collection", "sft", "rl/seed0", "evaluation")),
    ("pusht", VIDEO, ("tokenizer",)),
    ("miniwob", WEB, ("web collection",)),
)
"""Each run with the stages of it that are killed."""
CLOCKED = {"timings.jsonl", "report.html", "model_card.md", ".lock"}
HALF = re.compile(r"^\.(partial|removed)-|\.(part|partial)$")
"""Names of what is being written."""
CHAIN = 4
"""Kills before a chain is let run to its end."""


@dataclass
class Tally:
    """What came of one stage."""

    kills: int = 0
    in_writes: int = 0
    """Kills that left a checkpoint or another file half written."""
    compared: int = 0
    differing: list[str] = field(default_factory=list)


def write_square(folder: Path) -> None:
    """Episodes of a square that moves as its actions say."""
    folder.mkdir(parents=True)
    for episode in range(12):
        rng = np.random.default_rng(episode)
        image, place = np.full((9, 16, 16, 3), 240, np.uint8), rng.integers(2, 10, 2)
        action = rng.integers(-2, 3, (9, 2)).astype(np.float32)
        for t in range(9):
            image[t, place[0] : place[0] + 4, place[1] : place[1] + 4] = (200, 40, 40)
            place = np.clip(place + action[t].astype(int), 0, 12)
        np.savez_compressed(folder / f"square_eps_{episode:08d}.npz", image=image, action=action)


def announce(tell: Callable[[str], None]) -> None:
    """In a child: have the stages say that they begin."""

    def wrapped(function: Any, name_of: Callable[..., str]) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if name := name_of(*arguments, **named):
                tell(name)
            return function(*arguments, **named)

        return call

    text_env.collect_rows = wrapped(text_env.collect_rows, lambda *_: "collection")  # type: ignore[attr-defined]
    web_page.collect_rows = wrapped(web_page.collect_rows, lambda *_: "web collection")  # type: ignore[attr-defined]
    runner.run_stage = wrapped(runner.run_stage, lambda schedule, *_: schedule.name)  # type: ignore[attr-defined]
    runner.evaluate = wrapped(runner.evaluate, lambda *_: "evaluation")  # type: ignore[attr-defined]
    runner.write_report, runner.text_report = lambda run: run, lambda _: ""  # seconds of drawing, made anew each time


def go_on(config: Config, place: Path, pipe: int, saves: Path | None, later: Collection[str]) -> NoReturn:
    """The child: announce stages, copy ``place`` as each begins into ``saves``, stop where one of ``later`` would."""
    sink = os.open(place.parent / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    begun: list[str] = []

    def tell(name: str) -> None:
        if name in begun:
            return
        if name in later:
            os._exit(0)
        if saves:
            shutil.copytree(place, saves / name.replace("/", "-"))
        begun.append(name)
        os.write(pipe, f"{name}\n".encode())

    code = 1
    try:
        announce(tell)
        run = place / "run"
        if (run / "config.json").exists():
            runner.resume(run)
        else:
            runner.train(config, run)
        code = 0
    finally:
        os._exit(code)


def fork(config: Config, place: Path, saves: Path | None = None, later: Collection[str] = ()) -> tuple[int, int]:
    """A child that goes on with the run at ``place``: its process id, and where it announces its stages."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        go_on(config, place, theirs, saves, later)
    os.close(theirs)
    return child, ours


def stages_of(pipe: int) -> Iterator[tuple[str, float]]:
    """The stages that a child announces, each with the time."""
    with os.fdopen(pipe) as lines:
        for line in lines:
            yield line.strip(), time.monotonic()


def alone(config: Config, place: Path, saves: Path) -> dict[str, float]:
    """The uninterrupted run; how long each of its stages took. ``saves`` gets the folder as each began, and the end."""
    child, pipe = fork(config, place, saves)
    begun = [*stages_of(pipe)]
    assert os.waitpid(child, 0)[1] == 0, (place.parent / "child.log").read_text()
    shutil.copytree(place, saves / "end")
    ends = [at for _, at in begun[1:]] + [time.monotonic()]
    return {name: end - at for (name, at), end in zip(begun, ends, strict=True)}


def killed(config: Config, place: Path, stage: str, later: Collection[str], delay: float | None) -> bool:
    """Go on, and kill the child ``delay`` seconds after ``stage`` began, never for None; whether it was killed."""
    child, pipe = fork(config, place, later=later)
    for name, _ in stages_of(pipe) if delay is not None else ():
        if name == stage:
            time.sleep(delay)
            break
    if delay is not None:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if delay is None:
        os.close(pipe)
        assert status == 0, (place.parent / "child.log").read_text()
    return os.WIFSIGNALED(status)


def compare(got: Path, expected: Path) -> list[str]:
    """The files that differ, or are on one side only."""

    def files(folder: Path) -> dict[str, bytes]:
        kept = (p for p in folder.rglob("*") if p.is_file() and p.name not in CLOCKED and p.suffix != ".part")
        return {str(p.relative_to(folder)): p.read_bytes() for p in kept}

    one, two = files(got), files(expected)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def chain(config: Config, place: Path, saves: Path, stages: list[str], stage: str, took: float, kills: int,
          draw: random.Random, tally: Tally) -> None:  # fmt: skip
    """Kill one stage ``kills`` times at most, then let it end and compare."""
    later = stages[stages.index(stage) + 1 :]
    shutil.rmtree(place)
    shutil.copytree(saves / stage.replace("/", "-"), place)
    for _ in range(kills):
        if not killed(config, place, stage, later, draw.uniform(0, 0.8 * took)):
            break
        tally.kills += 1
        tally.in_writes += any(HALF.search(path.name) for path in place.rglob("*"))
        rows = [path.relative_to(place) for path in place.glob("cache/*.jsonl.gz")]
        tally.differing += [
            f"{path} at a kill" for path in rows if (place / path).read_bytes() != (saves / "end" / path).read_bytes()
        ]
    killed(config, place, stage, later, None)
    following = [*later, "end"][0]
    tally.compared += 1
    tally.differing += compare(place, saves / following.replace("/", "-"))


def browser() -> bool:
    """Whether pages can be collected here."""
    try:
        return bool(find_spec("miniwob") and find_spec("playwright") and find_chromium("", ""))
    except InputError:
        return False


def run(kills: int, seed: int, folder: Path) -> dict[str, Tally]:
    """``kills`` kills, shared out among the stages that this machine can run."""
    tallies: dict[str, Tally] = {}
    draw = random.Random(seed)
    runs = [one for one in WHOLE if one[0] != "miniwob" or browser()]
    stages = sum(len(wanted) for *_, wanted in runs)
    for recipe, settings, wanted in runs:
        home = folder / recipe
        place, saves = home / "place", home / "saves"
        place.mkdir(parents=True)
        given = [f"data.cache={place / 'cache'}"]
        if recipe == "pusht":
            write_square(home / "square")
            given.append(f"data.path={home / 'square'}")
        config = override(find(recipe).config(), [*SMALL.split(), *settings.split(), *given])
        took = alone(config, place, saves)
        for stage in wanted:
            tally = tallies[stage] = Tally()
            share = kills // stages + (len(tallies) <= kills % stages)
            while tally.kills < share:
                todo = min(CHAIN, share - tally.kills)
                chain(config, place, saves, list(took), stage, took[stage], todo, draw, tally)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where runs go, new (a temporary folder)")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        tallies = run(args.kills, args.seed, args.folder or Path(made))
    print(
        "| stage | kills = resumes | of them while writing | runs compared | differing files |\n|---|--:|--:|--:|--:|"
    )
    for name, t in tallies.items():
        print(f"| {name} | {t.kills} | {t.in_writes} | {t.compared} | {len(t.differing)} |")
    found = [name for t in tallies.values() for name in t.differing]
    print(f"\n{sum(t.kills for t in tallies.values())} kills, {len(found)} differing files, "
          f"{time.monotonic() - started:.0f} s {sorted(set(found))[:10] or ''}")  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
