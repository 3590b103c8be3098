"""Policies on a line of light whose dynamics are known: agreement, rollouts, what is learned, the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from rlvr_world.diagnose import policies as diagnosed
from rlvr_world.errors import InputError
from rlvr_world.policies import learned
from rlvr_world.policies.agreement import agreement, ceiling, gap_change, statistics
from rlvr_world.policies.learned import judge, learn
from rlvr_world.policies.rollouts import HOLD, Seen, improve, read_policy, roll, roll_real
from rlvr_world.recipes.tasks import Labelled, Trial
from rlvr_world.sampling.engine import Sampling
from rlvr_world.types import Asked, Outcome, Streams

SPACE = Box(np.float32([-1.0]), np.float32([1.0]))
SIDE = 16


def picture(light: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), np.clip(255 * light, 0, 255), np.uint8)


class Light:
    """A light that actions make brighter or darker; above 0.6 is success. With ``tells`` it says so itself; imagined
    ones slip a little, as their streams say."""

    action_space, render_mode = SPACE, "rgb_array"
    observation_space = Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def __init__(self, tells: bool, slips: float = 0.0) -> None:
        self.tells, self.slips, self.asked = tells, slips, 0

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
        state = options.get("state", options.get("light", 0.3))
        return (state["pixels"][0, 0, 0] / 255 if isinstance(state, dict) else state), {}

    def read_action(self, given: Any) -> float:
        return float(given[0])

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        self.asked += len(asked)
        found = []
        for (light, action), stream in zip(asked, streams, strict=True):
            slip = self.slips * np.random.default_rng(stream).normal()
            after = float(np.clip(light + 0.1 * action + slip, 0, 1))
            found.append(Outcome(after, info={"is_success": after > 0.6} if self.tells else {}))
        return found

    def observe(self, state: float) -> np.ndarray:
        return picture(state)

    def render(self, state: float) -> np.ndarray:
        return picture(state)

    def close(self) -> None: ...


def labelled(part: str) -> Labelled:
    rng = np.random.default_rng(len(part))
    light = rng.uniform(0, 1, 400).astype(np.float32)
    frames = np.stack([picture(one) for one in light])
    expert = np.ones((400, 1), np.float32)
    return Labelled(frames, light, light > 0.6, expert, np.repeat(np.arange(4), 100) - 1)


def trial(real: Light) -> Trial:
    return Trial(
        real, lambda n: {"light": 0.2 + 0.03 * n}, 6, "brighten", labelled, lambda frames: frames, {"idle": "random"}
    )


def up(seen: Seen) -> np.ndarray:
    return np.ones((len(seen.pixels), 1))


def test_statistics_of_known_rates() -> None:
    real = np.array([0.0, 0.2, 0.5, 0.9])
    assert statistics(real, real) == pytest.approx([1, 1, 0, 0])
    assert statistics(real / 2 + 0.1, real)[:3] == pytest.approx([1, 1, 0])
    pearson, spearman, mmrv, gap = statistics(real[::-1], real)
    assert (spearman, gap) == pytest.approx((-1, (0.9 + 0.3 + 0.3 + 0.9) / 4))
    assert pearson < -0.9
    assert mmrv == pytest.approx((0.9 + 0.7 + 0.5 + 0.9) / 4)  # each beside the one that it is farthest from
    # 0.2 and 0.5 are told apart in reality alone: the pair counts for one of the two
    assert statistics(np.array([0.0, 0.3, 0.3, 0.9]), real)[2] == pytest.approx(0.3 / 4)
    assert math.isnan(statistics(np.full(4, 0.5), real)[0])


def test_agreement_has_wider_intervals_over_policies_and_none_where_nothing_varies() -> None:
    rng = np.random.default_rng(0)
    rates = np.linspace(0, 1, 8)[:, None]
    real, imagined = (rng.random((8, 40)) < rates for _ in range(2))
    found = agreement(imagined, real)
    pearson = found["pearson"]
    assert 0.85 < pearson[1][0] < pearson[1][1] <= 1  # resampling adds noise: on the side that is worse
    assert pearson[0] > 0.9
    assert pearson[2][1] - pearson[2][0] > pearson[1][1] - pearson[1][0]
    assert agreement(np.zeros((3, 9)), np.zeros((3, 9)))["pearson"] == [None, [None, None], [None, None]]


def test_real_rates_are_drawn_anew_from_as_many_episodes_as_they_are_of() -> None:
    rates = np.linspace(0, 1, 8)
    imagined = np.random.default_rng(0).random((8, 40)) < rates[:, None]
    few, many, unknown = (agreement(imagined, rates, np.full(8, n)) for n in (5, 10**6, 0))
    assert few["pearson"][0] == many["pearson"][0] == unknown["pearson"][0]
    width = [one["pearson"][1][1] - one["pearson"][1][0] for one in (few, many, unknown)]
    assert width[0] > 1.5 * width[1] > 0
    assert width[2] == pytest.approx(width[1], abs=0.01)  # kept as it is
    assert ceiling(rates, 40, np.full(8, 40)) == ceiling(rates, 40)
    assert ceiling(rates, 40, np.full(8, 5))["pearson"][1] < ceiling(rates, 40)["pearson"][1]
    assert ceiling(rates, 40, np.array([0] + 7 * [9]))["gap"] == [None, None]


def test_a_gap_is_compared_over_the_same_starts() -> None:
    rng = np.random.default_rng(0)
    real, near, far = (rng.random((8, 80)) < rate for rate in (0.5, 0.5, 0.9))
    change, (low, high) = gap_change(far, near, real)
    assert change == pytest.approx(agreement(far, real)["gap"][0] - agreement(near, real)["gap"][0])
    assert 0 < low < change < high
    assert gap_change(near, near, real) == [0, [0, 0]]
    assert gap_change(near, far, real)[1] == pytest.approx([-high, -low])


def test_a_perfect_model_is_seen_as_one_the_better_the_more_episodes() -> None:
    rates = np.linspace(0, 1, 8)  # measured before: 8 even policies, 40 episodes: Pearson .977, in 19 of 20 above .94
    few, many = ceiling(rates, 40), ceiling(rates, 400)
    assert few["pearson"] == pytest.approx([0.977, 0.94], abs=0.01)
    assert many["pearson"][1] > few["pearson"][1]
    assert many["gap"][1] < few["gap"][1]


def test_policies_act_alike_whatever_they_are_asked_with_and_in_whatever_world(tmp_path: Path) -> None:
    real, imagined = Light(tells=True), Light(tells=False, slips=0.02)
    rivals = [read_policy(spec, SPACE, lambda: labelled("train"), tmp_path) for spec in ("random", "noisy:0.5:random")]
    task, says = trial(real), lambda frames: frames[:, 0, 0, 0] > 0.6 * 255
    pasts = [real.start(n, task.start(n))[0] for n in range(11)]
    together = roll(imagined, task, [up, *rivals], says, dict(enumerate(pasts)))
    assert together.actions.shape == (3, 11, 6, 1)
    assert together.films.shape == (3, 4, 7, SIDE, SIDE, 3)
    alone = roll(imagined, task, [rivals[1]], says, {5: pasts[5]})
    np.testing.assert_array_equal(alone.actions[0, 0], together.actions[2, 5])
    np.testing.assert_array_equal(alone.success[0, 0], together.success[2, 5])
    assert (together.success == together.judged).all()  # this world tells nothing itself
    really = roll_real(task, [up, *rivals], says, pasts)
    np.testing.assert_array_equal(really.actions, together.actions)  # what they do does not hang on what they see
    np.testing.assert_array_equal(really.success[0, :, -1], np.array([0.2 + 0.03 * n + 0.6 > 0.6 for n in range(11)]))
    assert not really.success[0, 0, 0]


@pytest.mark.parametrize("sign", [1, -1])
def test_who_looks_ahead_goes_where_the_judge_says_far(sign: int) -> None:
    real, imagined = Light(tells=True), Light(tells=False, slips=0.1)
    still = lambda seen: np.zeros((len(seen.pixels), 1))  # noqa: E731
    says = lambda frames: sign * (frames[:, 0, 0, 0] - 153.0)  # noqa: E731
    ahead = improve(still, 9, imagined, says, SPACE)
    pasts = [0.5 + 0.01 * n for n in range(9)]
    done = roll_real(trial(real), [still, ahead], says, pasts)
    assert (sign * done.actions[1]).mean() > 0.3  # slips are the same for all, so that none hides what is best
    assert done.success[1, :, -1].mean() == (sign > 0)
    assert (done.actions[0] == 0).all()
    assert (done.actions[1, :, :HOLD] == done.actions[1, :, :1]).all()
    assert (done.actions[1, :, HOLD] != done.actions[1, :, 0]).any()
    for alike, bound in ((lambda frames: np.zeros(len(frames), bool), 0), (lambda frames: says(frames) / 1e4, 1e-2)):
        own = roll_real(trial(real), [improve(still, 9, imagined, alike, SPACE)], says, pasts).actions
        assert np.abs(own).max() <= bound  # where nothing is better by the judge's errors it is its own


def test_what_is_learned_reads_frames_and_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(learned, "STEPS", 300)
    says, about = judge(labelled, lambda frames: frames // 8 * 8, tmp_path / "judge.safetensors")
    assert about["right on real frames"] > 0.95
    assert about["right on round trips"] > 0.93
    assert 0.5 < about["threshold"] < 0.7
    np.testing.assert_array_equal(says(np.stack([picture(0.3), picture(0.9)])) > 0, [False, True])
    kept = (tmp_path / "judge.safetensors").stat().st_mtime_ns
    assert judge(labelled, lambda frames: frames // 8 * 8, tmp_path / "judge.safetensors")[1] == about
    assert (tmp_path / "judge.safetensors").stat().st_mtime_ns == kept
    data = labelled("train")
    read = learn(data.frames, data.measure[:, None], 300, tmp_path / "other.safetensors")
    assert abs(read(np.stack([picture(0.5)]))[0, 0] - 0.5) < 0.1


def test_specifications(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def still(seen):\n    return seen.pixels[:, 0, 0, :1] * 0.0 + seen.step\n")
    seen = Seen(np.stack([picture(0.5)] * 2), None, "brighten", [3, 4], 1)

    def act(spec: str) -> np.ndarray:
        return read_policy(spec, SPACE, lambda: labelled("train"), tmp_path)(seen)

    assert act(f"{tmp_path}/mine.py:still").tolist() == [[1], [1]]
    assert act("clone:1:200").min() > 0.8  # its experts always brighten
    assert (act(f"noisy:0.3:{tmp_path}/mine.py:still") <= 1).all()
    assert act("random").shape == (2, 1)
    for wrong in (
        "clone:0",
        "clone:1:0",
        "clone:x",
        "noisy:1",
        "noisy::random",
        "into:x:random",
        "replay",
        f"{tmp_path}/mine.py:gone",
    ):
        with pytest.raises(InputError, match=r"policy '.*': expected random, clone:DEMOS"):
            act(wrong)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A run with two models, one of which slips more."""
    made = SimpleNamespace(real=Light(tells=True), imagined={"sft": Light(False, 0.15), "rl": Light(False, 0.01)})
    recipe = SimpleNamespace(trials=lambda config, domain: {"brighten": trial(made.real)})
    monkeypatch.setattr(diagnosed, "run_of", lambda run: run)
    monkeypatch.setattr(diagnosed, "models_of", lambda run: {name: Path(name) for name in made.imagined})
    world = SimpleNamespace(recipe=recipe, config=None, domain=None)
    monkeypatch.setattr(diagnosed, "load", lambda model: world if model == Path("sft") else model)
    monkeypatch.setattr(diagnosed, "identity", str)

    def imagined(model: Any, temperature: float | None) -> Light:
        opened = made.imagined["rl" if model == Path("rl") else "sft"]
        opened.sampling = Sampling(1.0 if temperature is None else temperature)
        return opened

    monkeypatch.setattr(diagnosed, "Imagined", imagined)
    return made


def test_a_report_says_what_each_model_agrees_in_and_is_not_made_twice(run: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "def up(seen):\n    return np.ones((len(seen.pixels), 1))\n"
        "def slow(seen):\n    return np.full((len(seen.pixels), 1), 0.4)\n"
        "def bright(frames):\n    return frames[:, 0, 0, 0] > 0.6 * 255\n"
        "def by(frames):\n    return frames[:, 0, 0, 0] - 0.6 * 255\n"
    )
    specs = {"up": f"{tmp_path}/own.py:up", "slow": f"{tmp_path}/own.py:slow", "random": "random"}
    asked = (tmp_path, diagnosed.Study(specs, (), 12, f"{tmp_path}/own.py:bright", True))
    text = diagnosed.try_policies(*asked)
    folder = tmp_path / "policies" / "brighten"
    told = json.loads((folder / "report.json").read_text())
    gaps = {name: told["agreement"][name]["gap"][0] for name in ("rl", "sft")}
    assert gaps["rl"] < gaps["sft"]
    assert told["gap changes"]["rl"][1] == pytest.approx(gaps["rl"] - gaps["sft"])
    assert told["success"]["real"] == told["success"]["real, round trips"]
    assert told["alike"]["rl, real actions"] > 0.9
    assert told["judge right on the real last frames"] == 1
    assert "| up | 100 [76, 100] | 100 [76, 100] |" in text
    assert {"report.md", "scatter.png", "film-0.gif"} <= {file.name for file in folder.iterdir()}
    counts = [run.real.asked, *(one.asked for one in run.imagined.values())]
    assert diagnosed.try_policies(*asked) == text
    assert [run.real.asked, *(one.asked for one in run.imagined.values())] == counts
    assert "models draw at a temperature of {'sft': 1.0, 'rl': 1.0}" in text
    colder = diagnosed.try_policies(tmp_path, asked[1]._replace(temperature=0.5))
    assert "models draw at a temperature of {'sft': 0.5, 'rl': 0.5}" in colder
    assert run.real.asked == counts[0]
    assert all(one.asked > before for one, before in zip(run.imagined.values(), counts[1:], strict=True))
    assert "rl" not in json.loads(folder.joinpath("report.json").read_text())["policies"]
    diagnosed.try_policies(
        tmp_path, diagnosed.Study({"random": "random"}, ("rl",), 4, f"{tmp_path}/own.py:bright", False)
    )
    assert [*json.loads((folder / "report.json").read_text())["alike"]] == ["rl"]
    text = diagnosed.try_policies(
        tmp_path, diagnosed.Study({"slow": specs["slow"]}, ("rl",), 12, f"{tmp_path}/own.py:by", False, 8)
    )
    told = json.loads((folder / "report.json").read_text())
    ahead = "real, looking ahead in rl"
    assert np.mean(told["success"][ahead]) > np.mean(told["success"]["real"])
    assert told["gains"][ahead]["low"] > 0
    assert f"\n\n{ahead}: success +" in text
    assert [*told["agreement"]] == ["rl", "rl, any step"]


def test_what_cannot_be_tried(run: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"some of brighten, sft, rl, and at least 2 starts, got \['gone'\] and 5"):
        diagnosed.try_policies(tmp_path, diagnosed.Study({}, ("gone",), 5, "learned", False))
    with pytest.raises(InputError, match="at least 2 starts, got 1 and 1"):
        diagnosed.try_policies(tmp_path, diagnosed.Study({}, (), 1, "learned", False))
    with pytest.raises(InputError, match=r"x\.py: there is no such file"):
        diagnosed.try_policies(tmp_path, diagnosed.Study({}, (), 5, "x.py:f", False))
    with pytest.raises(InputError, match=r"--lookahead: expected at least 2 plans, policies .* got 4, \['a.npz'\]"):
        diagnosed.try_policies(tmp_path, diagnosed.Study({"done": "a.npz"}, (), 5, "learned", False, 4))
