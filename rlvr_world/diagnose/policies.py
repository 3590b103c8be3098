"""Policies tried in the models of a run and, from the same starts, in the real world; how far the two agree.

Shape legend: P policies, N starts, K filmed starts, T steps, H height, W width.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import bootstrap, wilson
from rlvr_world.evaluation.summary import fingerprint
from rlvr_world.evaluation.tables import markdown
from rlvr_world.policies.agreement import agreement, ceiling, gap_change, statistics
from rlvr_world.policies.known import read_known
from rlvr_world.policies.learned import Frames, judge
from rlvr_world.policies.rollouts import FILMED, Rollouts, improve, read_policy, roll, roll_real
from rlvr_world.policies.watched import Watcher, films_of, watched
from rlvr_world.recipes import named_in
from rlvr_world.recipes.tasks import Trial
from rlvr_world.runs.checkpoints import identity
from rlvr_world.runs.folder import models_of, run_of
from rlvr_world.runs.world_model import load
from rlvr_world.sessions.imagined import Imagined
from rlvr_world.sessions.judged import Judged
from rlvr_world.sessions.shared import Worlds
from rlvr_world.system.files import digest, write_whole


class Study(NamedTuple):
    """``specs``: policies by name, see ``read_policy``; ``only``: tasks and models; empty for the recipe's and for all.
    ``judged_by``: ``learned``, or ``FILE.py:FUNCTION``, frames uint8 [N, H, W, 3] -> bool [N], or a ``Watcher`` of
    whole films. ``controls``: the real actions replayed in imagination, and policies that see round trips of the
    tokenizer, or another look of the world, really. ``tries``: the policies also, really, mended by so many
    plans, as each model imagines them, see ``improve``; 0 for not. ``real``: a file of tasks with
    known success, see ``read_known``; then nothing but models is stepped, ``starts`` times for each instruction.
    ``temperature``: at which models draw; None for that of the recipe's evaluation."""

    specs: Mapping[str, str]
    only: Collection[str]
    starts: int
    judged_by: str
    controls: bool = False
    tries: int = 0
    real: Path | None = None
    temperature: float | None = None


def try_policies(run: Path, asked: Study) -> str:
    """What came of it, in Markdown: report.md in ``RUN/policies/<task>/``, with report.json, scatter.png, films, and
    rollouts, which are not made again. Raises InputError, and Halted where films wait for a person."""
    specs, only, starts, judged_by, controls, tries, real, _ = asked
    models, texts = models_of(run) if run_of(run) == run else {"model": run}, []
    if real and (controls or tries):
        raise InputError("policy-eval --real: expected no --controls or --lookahead, got one; they need a simulator")
    first = next(iter(models.values()))
    trials = read_known(real, specs, starts, Imagined(load(first))) if real else _trials(first)
    unknown = [name for name in only if name not in {*trials, *models}]
    if not trials or unknown or starts < 2:
        wanted = f"a recipe with trials(), some of {', '.join([*trials, *models])}, and at least 2 starts"
        raise InputError(f"policy-eval: expected {wanted}, got {unknown or len(trials)} and {starts}")
    remember = [spec for spec in specs.values() if "://" in spec or spec.endswith(".npz")]  # also under noise
    if tries and (tries < 2 or remember or films_of(judged_by)):
        wanted = "at least 2 plans, policies that remember nothing and a judge of frames"
        raise InputError(f"policy-eval --lookahead: expected {wanted}, got {tries}, {remember}, {judged_by}")
    chosen = {name: path for name, path in models.items() if name in only} or models
    for name in [name for name in trials if name in only] or trials:
        folder, parts = run / "policies" / name, list[dict[str, Rollouts]]()
        folder.mkdir(parents=True, exist_ok=True)
        for trial in trials[name]:
            about: dict[str, Any] = {"task": trial.instruction, "steps": trial.steps, "starts": starts}
            about |= {"policies": dict(specs or trial.policies), "judge": judged_by}
            about |= {"episodes": [trial.start(n)["state"].id for n in range(starts)]} if trial.known else {}
            found, better = _try_task(folder, trial, chosen, about, asked)
            parts.append({key: one._replace(films=one.films[:, :FILMED].copy()) for key, one in found.items()})
            trial.real.close()
        about |= {"task": ", ".join(one.instruction for one in trials[name]), "starts": starts * len(parts)}
        texts.append(_report(folder, about | {"real": trial.known}, parts, better))
    return "\n\n".join(texts)


def _trials(model: Path) -> dict[str, list[Trial]]:
    world = load(model)
    return {name: [trial] for name, trial in world.recipe.trials(world.config, world.domain).items()}


def with_task(worlds: Worlds, run: Path, name: str, judged_by: str) -> tuple[Worlds, int]:
    """The worlds of a run with one of its tasks, see ``Judged``, and the steps that it is given. The judge is that of
    ``try_policies``. Raises InputError for a task that is not there."""
    if name not in (trials := _trials(next(iter(models_of(run).values())))):
        raise InputError(f"task {name!r}: expected one of {', '.join(trials) or 'none, which this recipe has'}")
    [trial], folder = trials[name], run / "policies" / name
    folder.mkdir(parents=True, exist_ok=True)
    says, _ = read_judge(judged_by, trial, folder)
    task = says, trial.start, trial.instruction
    return {key: lambda make=make: Judged(make(), *task) for key, make in worlds.items()}, trial.steps


def read_judge(spec: str, trial: Trial, folder: Path) -> tuple[Frames, Any]:
    """One of frames, and what is to be told of it."""
    if spec == "learned":
        return judge(trial.labelled, trial.round_trip, folder / "judge.safetensors")
    if callable(says := named_in(spec)):
        return says, spec
    raise InputError(f"judge {spec!r}: expected learned or FILE.py:FUNCTION, or of whole films MODEL@URL or FILE.json")


def _try_task(
    folder: Path, trial: Trial, models: Mapping[str, Path], about: dict[str, Any], asked: Study
) -> tuple[dict[str, Rollouts], dict[str, Rollouts]]:
    """By name, the real ones first; apart, by model, those of policies that look ahead in it, really. What the judge
    gets wrong, and how fast all was, is added to ``about``."""
    labelled, specs, view = cache(trial.labelled), [*about["policies"].values()], trial.round_trip
    policies = [read_policy(spec, trial.real.action_space, lambda: labelled("train"), folder) for spec in specs]
    files = {Path(part) for spec in (*specs, about["judge"]) for part in spec.split(":") if part.endswith(".py")}
    about["code"] = digest(*sorted(files))
    watcher = Watcher(judged_by, folder) if films_of(judged_by := about["judge"]) else None
    says, about["judge"] = (None, "films") if watcher else read_judge(judged_by, trial, folder)
    pasts = [trial.real.start(number, trial.start(number))[0] for number in range(about["starts"])]
    speeds, drawn = dict[str, float](), dict[str, float]()

    def kept(name: str, make: Callable[[], Rollouts], model: str = "") -> Rollouts:
        fields = (*Rollouts._fields, "seconds")
        file = folder / f"{name}-{fingerprint({**about, 'model': model, 'fields': fields})}.npz"
        if not file.is_file():
            begun = time.perf_counter()
            np.savez_compressed(data := io.BytesIO(), **make()._asdict(), seconds=time.perf_counter() - begun)
            write_whole(file, data.getvalue())
        with np.load(file) as arrays:
            made = Rollouts(*(arrays[field] for field in Rollouts._fields))
            speeds[name] = round(made.success.size / float(arrays["seconds"]), 1)
        return watched(made, watcher, trial.instruction) if watcher else made

    found, better = {} if trial.known else {"real": kept("real", lambda: roll_real(trial, policies, says, pasts))}, {}
    through = [lambda seen, act=act: act(seen._replace(pixels=view(seen.pixels))) for act in policies]
    if asked.controls:
        found["real, round trips"] = kept("round-trips", lambda: roll_real(trial, through, says, pasts))
        if changed := trial.changed:
            painted = [changed.start(number, trial.start(number))[0] for number in range(about["starts"])]
            other = partial(roll_real, replace(trial, real=changed), policies, says, painted)
            found["real, changed look"] = kept("changed-look", other)
            changed.close()
    for name, path in models.items():
        imagined = Imagined(load(path), asked.temperature)
        key, drawn[name] = f"{identity(path)} {imagined.sampling}", imagined.sampling.temperature
        starts = {number: imagined.start(number, {"state": past})[0] for number, past in enumerate(pasts)}
        found[name] = kept("imagined", partial(roll, imagined, trial, policies, says, starts), key)
        if asked.controls:
            acted = [lambda seen, done=done: done[seen.seeds, seen.step] for done in found["real"].actions]
            found[f"{name}, real actions"] = kept("replayed", partial(roll, imagined, trial, acted, says, starts), key)
        if asked.tries and says:
            ahead = [improve(act, asked.tries, imagined, says, trial.real.action_space) for act in policies]
            better[name] = kept("ahead", partial(roll_real, trial, ahead, says, pasts), f"{key} {asked.tries}")
    about |= {"steps a second": speeds, "temperature": drawn}
    if watcher:
        watcher.check(trial.instruction)
        about["judge"] = {"judge": judged_by, "verdicts": len(watcher.verdicts), "did not read": watcher.unread}
    return found, better


def _report(
    folder: Path, about: Mapping[str, Any], parts: Sequence[Mapping[str, Rollouts]], better: Mapping[str, Rollouts]
) -> str:
    """Files, see ``try_policies``, and their text. Success is at the last step, agreement also of any; films are those
    of the first part."""
    found = parts[0]
    last: dict[str, Any] = {name: np.concatenate([one[name].success[:, :, -1] for one in parts], 1) for name in found}
    some: dict[str, Any] = {name: np.concatenate([one[name].success.any(2) for one in parts], 1) for name in found}
    rates, rivals = {name: table.mean(1) for name, table in last.items()}, [name for name in found if name != "real"]
    means = {name: np.concatenate([one[name].judged[:, :, -1] for one in parts], 1).mean(1) for name in found}
    compared, known, counts = dict[str, Any](), list[str](), None
    if "real" in found:
        compared = _compared(found["real"], last, means)
    else:
        rates["real"], counts = map(np.array, zip(*(pairs := about["real"].values()), strict=True))
        known = [_percent(np.arange(n) < round(rate * n)) if n else f"{100 * rate:.0f}" for rate, n in pairs]
    stats = {name: agreement(last[name], last.get("real", rates["real"]), counts) for name in rivals}
    if "verdicts" not in about["judge"]:  # who watches films says how they end
        stats |= {f"{a}, any step": agreement(some[a], some.get("real", rates["real"]), counts) for a in rivals}
    perfect = ceiling(rates["real"], about["starts"], counts)
    ahead = {f"real, looking ahead in {name}": one.success[:, :, -1] for name, one in better.items()}
    gains = {name: bootstrap(100.0 * (table - 1.0 * last["real"]).mean(0)) for name, table in ahead.items()}
    shown = last | ahead
    told = {**about, "gains": {name: one.as_dict() for name, one in gains.items()}, **compared}
    told |= {"success": {name: table.astype(int).tolist() for name, table in shown.items()}}
    told |= {"agreement": stats, "perfect": perfect, "read off": {name: one.tolist() for name, one in means.items()}}
    write_whole(folder / "report.json", json.dumps(told))
    rows = [["policy", *["real"] * bool(known), *shown, "episodes for ± 5"]]
    for p, name in enumerate(about["policies"]):
        spread = max(rates["real"][p] * (1 - rates["real"][p]), 0.05 * 0.95)  # a rate of 0 in few is not known to be 0
        shares = (*known[p : p + 1], *(_percent(table[p]) for table in shown.values()))
        rows.append([name, *shares, f"{1.96**2 * spread / 0.05**2:.0f}"])
    agree = [["", *perfect], ["a perfect model (19 of 20 times)", *(f"{_n(a)} ({_n(b)})" for a, b in perfect.values())]]
    agree += [[name, *(" ".join(map(_n, one)) for one in by_stat.values())] for name, by_stat in stats.items()]
    head = f"{about['task']}: success at the last of {about['steps']} steps, {about['starts']} starts, % [95 %, Wilson]"
    right, wrong = (compared.get(key) for key in ("judge right on the real last frames", "judge wrong"))
    text = f"""{head}\n\n{markdown(rows)}\n
agreement over policies [95 % over starts] [over starts and policies]\n\n{markdown(agree)}\n
episodes that end as the real ones do: {compared.get("alike", "nobody tells")}
Pearson of means of what the judge reads off last frames: {compared.get("read off, pearson", "nobody tells")}\n
judge: {about["judge"]}; right on the real last frames: {f"{right} ({wrong})" if wrong else "nobody tells"}
models draw at a temperature of {about["temperature"]}
policy steps a second, with policies and judge: {about["steps a second"]}"""
    for name, (other, change, ends) in compared.get("gap changes", {}).items():
        text += f"\n\ngap of {name}, from that of {other}: {change:+.2f} {_n(ends)}, over starts"
    for name, gain in gains.items():
        bounds = "too few starts" if gain.low is None else f"[{gain.low:+.1f}, {gain.high:+.1f}]"
        text += f"\n\n{name}: success {gain.mean:+.1f} {bounds} points, over starts"
    pictures = _pictures(folder, found, rates)
    write_whole(folder / "report.md", "\n\n".join([pictures[0], text, *pictures[1:]]) + "\n")
    return text


def _compared(real: Rollouts, last: Mapping[str, np.ndarray], means: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of each but the real one, the share of episodes that end as that does, the correlation of what the judge reads
    off on average, and how the gap differs from that of the first model; how often the judge is right, wrong how."""
    said, true, rivals = real.judged[:, :, -1] > 0, last["real"], [name for name in last if name != "real"]
    first = next(name for name in rivals if not name.startswith("real"))
    near = {name: statistics(means[name], means["real"])[0] for name in rivals}
    told: dict[str, Any] = {
        "alike": {name: round(float(np.mean(last[name] == true)), 4) for name in rivals},
        "read off, pearson": {name: round(one, 4) if np.isfinite(one) else None for name, one in near.items()},
        "gap changes": {name: [first, *gap_change(last[name], last[first], true)] for name in rivals if name != first},
    }
    if real.told.all():
        wrong = f"failures taken for success: {(said & ~true).sum()} of {(~true).sum()}, "
        wrong += f"successes missed: {(true & ~said).sum()} of {true.sum()}"
        told |= {"judge right on the real last frames": round(float(np.mean(said == true)), 4), "judge wrong": wrong}
    return told


def _percent(outcomes: np.ndarray) -> str:
    rate = wilson(int(outcomes.sum()), len(outcomes))
    return f"{100 * rate.mean:.0f} [{100 * (rate.low or 0):.0f}, {100 * (rate.high or 0):.0f}]"


def _n(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_n, value))}]"
    return "?" if value is None else f"{value:.2f}"


def _pictures(folder: Path, found: Mapping[str, Rollouts], rates: Mapping[str, np.ndarray]) -> list[str]:
    """The scatter, and of all but the real ones a GIF: a row a policy, of some starts both films."""
    from PIL import Image

    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes, told = figure.subplots(), ["![imagined against real](scatter.png)"]
    axes.plot([0, 1], [0, 1], color="0.7", lw=1)
    for number, name in enumerate(name for name in found if name != "real"):
        axes.plot(rates["real"], rates[name], "o", label=name, alpha=0.7)
        pairs = np.concatenate([found[one].films for one in ("real", name) if one in found], axis=4)
        P, _, T, H, *_ = pairs.shape
        table = pairs.transpose(2, 0, 3, 1, 4, 5).reshape(T, P * H, -1, 3).repeat(n := max(1, 96 // H), 1).repeat(n, 2)
        first, *rest = [Image.fromarray(frame) for frame in table]
        first.save(folder / f"film-{number}.gif", save_all=True, append_images=rest, duration=200, loop=0)
        told.append(f"![{name}](film-{number}.gif)")
    axes.set(xlabel="real success", ylabel="success", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.legend(frameon=False)
    figure.savefig(folder / "scatter.png", dpi=150)
    return told
