"""A rollout of a finished or stopped run made again, bit for bit, and shown; or a step that failed, done again."""

from __future__ import annotations

import re
from pathlib import Path

from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import TextTokenizer
from rlvr_world.runs import checkpoints, runner
from rlvr_world.runs.checkpoints import Counters
from rlvr_world.runs.guards import Guard
from rlvr_world.runs.jobs import job
from rlvr_world.runs.records import FAULT, read_kept, repeat
from rlvr_world.scoring import judge
from rlvr_world.system.files import read_object, write_whole
from rlvr_world.training.grpo import GRPO
from rlvr_world.training.optimizer import TRAINER
from rlvr_world.training.shared import from_json
from rlvr_world.types import Picture, Rollout, Transition

_ID = re.compile(r"(\d+)/(\d+)/(\d+)")


def replay_fault(fault: Path) -> tuple[bool, str]:
    """Do the step of a folder under ``RUN/faults`` again; whether it fails as it did, and a sentence about it."""
    said = read_object(fault / FAULT)
    if broken := checkpoints.damage(fault):
        raise InputError(f"{fault}: it is damaged: {broken}; `rlvr-world resume RUN` comes to that step again")
    run = runner.opened_run(fault.parents[1])
    opened = job(run, said["stage"])
    stage, trained, _ = opened.open()
    if isinstance(stage, GRPO):
        stage.record = None
    if not (fault / TRAINER).exists():  # a bug: its step is come to again from the checkpoint before it
        at, source = _policy_before(opened.folder, said["step"], opened.start)
        counters = checkpoints.read_counters(source) if at else Counters()
        if at:
            trained.restore(source)
        while counters.step < said["step"]:
            _, tokens = stage.step(counters.step, opened.progress_of(counters))
            counters = Counters(counters.step + 1, counters.tokens + tokens)
    guard = Guard(run.config.guards, run.config.checkpoints).watch(trained.watched)
    error, where = repeat(fault, stage, trained, guard), f"{said['stage']}, step {said['step']}"
    if error is None:
        return False, f"{where}: it does not fail here; it said: {said['said']}"
    same = str(error) == said["said"]
    return same, f"{where}: it fails {'again' if same else 'otherwise'}: {error}"


def replay(folder: Path, rollout: str, stage_name: str = "", redo: int = 0) -> str:
    """Make rollout ``step/group/number`` of an RL stage again and show it: tokens, prediction, difference, reward.

    The policy of its step is the checkpoint of that step, or comes from an earlier one (at last the start of the
    stage) by training at most ``redo`` steps again. Where neither is allowed, the kept rollout is shown as it is.
    Raises InputError for an id that does not exist, and where nothing can be shown.
    """
    match = _ID.fullmatch(rollout)
    if match is None:
        raise InputError(f"rollout {rollout!r}: expected step/group/number, such as 12/3/5")
    step, group, number = map(int, match.groups())
    run = runner.opened_run(folder)
    config = run.config.rl
    opened = job(run, stage_name or f"rl/seed{config.seeds[0]}")
    prompts = config.prompts * max(1, config.dynamic_sampling)
    if not (step < config.steps and group < prompts and number < config.group):
        below = f"{config.steps}, {prompts} and {config.group}"
        raise InputError(f"rollout {rollout}: expected step, group and number from 0 and below {below}")
    where = opened.folder
    stage = opened.open()[0]
    assert isinstance(stage, GRPO)
    stage.record = None
    at, source = _policy_before(where, step, opened.start)
    again = step - at <= redo and stage.servers is None  # whose draws do not come again
    if again and at:
        stage.learner.restore(source)
    for earlier in range(at, step) if again else ():
        stage.step(earlier, opened.progress_of(Counters(earlier)))
    kept, row = read_kept(where, step).get(rollout), stage.prompts(step)[group]
    if kept is not None and kept["row"] != row.id:  # drawn by spread, which the steps between tell
        row = next(one for one in stage.epoch_rows(step * prompts // stage.rows) if one.id == kept["row"])
    if again:
        rows, groups, _ = stage.rollouts(step, group // config.prompts)
        row, made = rows[group % config.prompts], groups[group % config.prompts][number]
    elif stage.closed_loop:
        raise InputError(f"rollout {rollout}: it begins in imagination, so make it again: add --redo {step - at}")
    was = None if kept is None else from_json(kept, stage.domain.encode(row))
    if again:
        trained = f", {step - at} steps trained again" if step > at else ""
        how = f"made again from {source}{trained}; {_compared(made, was)}"
    elif was is not None:
        made, how = was, f"as it was kept; to make it again from {source}, add --redo {step - at}"
    else:
        nearest = f"{source}, {step - at} steps before: add --redo {step - at} to train them again"
        raise InputError(f"rollout {rollout}: neither it nor the policy of step {step} was kept; nearest is {nearest}")
    return "\n".join([f"rollout {rollout} of {where}: {how}", *_shown(made, row, stage, folder)])


def _policy_before(stage: Path, step: int, start: str | Path) -> tuple[int, Path]:
    """The latest whole checkpoint that is not after ``step``, or the start of the stage at step 0."""
    for saved in reversed(checkpoints.checkpoints(stage)):
        if (at := checkpoints.read_counters(saved).step) <= step and at and not checkpoints.damage(saved):
            return at, saved
    return 0, Path(start)


def _compared(made: Rollout, was: Rollout | None) -> str:
    if was is None:
        return "it was not kept, so there is nothing to compare it with"
    if made.ids.tolist() != was.ids.tolist():
        pairs = zip(made.ids.tolist(), was.ids.tolist(), strict=False)
        differs = next((t for t, (a, b) in enumerate(pairs) if a != b), min(len(made.ids), len(was.ids)))
        return f"IT DIFFERS from the kept one from token {differs} on (another machine, thread count or version?)"
    if made.logps.numpy().tobytes() != was.logps.numpy().tobytes():
        gap = (made.logps - was.logps).abs().max().item()
        return f"the same tokens as the kept one, log-probs differ by at most {gap:.1e}"
    return "bit for bit the kept one"


def _shown(made: Rollout, row: Transition, stage: GRPO, folder: Path) -> list[str]:
    [[(prediction, score)]] = judge(stage.domain, [[made.written]], [row])
    explained = stage.domain.explain(prediction, row)
    if isinstance(explained, Picture):
        file = folder / "replays" / f"{'-'.join(map(str, made.stream))}.{explained.media.partition('/')[2]}"
        write_whole(file, explained.data)
        explained = f"picture: {file}"
    parts = ", ".join(f"{name} {value:.4g}" for name, value in score.parts.items())
    return [
        f"row {row.id}, action {row.action!s:.200}",
        f"stream {made.stream}, {len(made.ids)} tokens{'' if made.finished else ', cut off at the longest'}:",
        *_tokens(made, stage.learner.tokenizer),
        f"reward {score.value:.6g}: {parts}",
        *([f"malformed: {score.malformed}"] if score.malformed else []),
        explained,
    ]


def _tokens(made: Rollout, tokenizer: TextTokenizer | None) -> list[str]:
    """Every token with its log-probability; forced ones in brackets."""
    ids = made.ids.tolist()
    names = [repr(tokenizer.decode([i])) for i in ids] if tokenizer is not None else [""] * len(ids)
    return [
        f"  {i:>6} {name} {logp:.4f}" if drawn else f"  [{i}] {name}"
        for i, name, drawn, logp in zip(ids, names, made.sampled.tolist(), made.logps.tolist(), strict=True)
    ]
