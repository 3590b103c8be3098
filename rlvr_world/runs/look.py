"""One look before anything costs: settings, then rows, model, tokenizer and reward together, each by the code that will
use it. ``train`` and ``check`` call the same functions; what they raise names a setting, or a file, row and field."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rlvr_world import overrides, recipes
from rlvr_world.config import Config, GuardConfig
from rlvr_world.errors import InputError, NonFinite
from rlvr_world.evaluation.summary import OVERALL
from rlvr_world.models.contract import check_length, prepare
from rlvr_world.models.head import Model
from rlvr_world.models.loading import load_model, model_place
from rlvr_world.recipes import Recipe
from rlvr_world.runs import jobs
from rlvr_world.runs.guards import LOGGED, Guard, require
from rlvr_world.runs.jobs import Run
from rlvr_world.runs.tracking import tracker_module
from rlvr_world.scoring import judge
from rlvr_world.training.sft import KEPT
from rlvr_world.types import BatchDomain, Domain, Script, Transition, Write

LEAST = {
    **dict.fromkeys(("save_every", "forward_tokens", "batch", "max_rows", "at_once", "keep", "layers", "heads"), 1),
    **dict.fromkeys(
        ("runs", "valid_rows", "patience", "model.hidden", "model.context", "max_prompt", "max_response"), 1
    ),
    **dict.fromkeys(("seed", "steps", "eval_every", "threads", "rows", "samples", "pretrain_steps"), 0),
    **dict.fromkeys(
        ("lora_rank", "dynamic_sampling", "extremes", "sample", "flat_steps", "still_steps", "reject_attempts"), 0
    ),
    **dict.fromkeys(("learning_rate", "weight_decay", "warmup", "beta1", "beta2", "clip_low", "clip_high"), 0),
    **dict.fromkeys(("rl.kl", "rl.entropy", "eval.temperature", "top_k", "sample_rows", "megabytes", "logp_gap"), 0),
    **dict.fromkeys(("model.intermediate", "guards.drop", "split.test", "split.valid", "split.worlds"), 0),
}
"""The least that numbers may be whose names end so, in any group of settings."""
BELOW_ONE = ("warmup", "beta1", "beta2", "split.test", "split.valid", "split.worlds")
"""Numbers that have to be below 1."""
LOOKED = 64
"""Rows of each split that are encoded in advance: the longest, as far as characters tell."""


def at_settings(config: Config) -> Recipe:
    """The recipe, once all settings are found to go together: before any row is read, collected or made."""
    for setting in overrides.settings(config):
        if isinstance(got := setting.value, (int, float)):
            parts = setting.name.split(".")
            ends = [".".join(parts[i:]) for i in range(len(parts))]
            least = next((LEAST[end] for end in ends if end in LEAST), got)
            if got < least:
                raise InputError(f"{setting.name}: expected at least {least}, got {got}")
            if got >= 1 and not {*ends}.isdisjoint(BELOW_ONE):
                raise InputError(f"{setting.name}: expected less than 1, got {got}")
        elif got == "muon" and (config.model.lora_rank or not setting.name.startswith(("sft.", "rl."))):
            what = "a visual tokenizer" if setting.name.startswith("data.") else "adapters (model.lora_rank)"
            raise InputError(f"{setting.name}: expected adamw for {what}, got muon; it is for a model's own matrices")
    for name in config.trackers:
        tracker_module(name)
    if config.rl.steps:
        _check_rl(config)
    if config.model.source != "scratch":
        model_place(config.model.source)
    recipe = recipes.find(config.recipe)
    recipe.check_config(config)
    return recipe


def _check_rl(config: Config) -> None:
    guard = Guard(config.guards, config.checkpoints, collapses=True)
    if config.guards.collapse == "rollback" and not config.rl.eval_every:
        raise InputError("rl.eval_every: expected more than 0 with guards.collapse=rollback, got 0; set it")
    if any(name.startswith("eval/") for name in guard.named) and not config.rl.eval_every:
        raise InputError("rl.eval_every: expected more than 0 with a limit on eval/..., got 0; set it")
    for name, _, _, text in guard.limits if not config.rl.kl else ():
        if name == "kl" and text not in GuardConfig().limits:
            raise InputError(f"guards.limits: {text} is not watched where rl.kl=0; leave it out, or set rl.kl")
    for name, least in (("prompts", 1), ("group", 2), ("minibatches", 1)):
        if (got := getattr(config.rl, name)) < least:
            raise InputError(f"rl.{name}: expected at least {least}, got {got}; raise it, or set rl.steps=0")
    if config.rl.advantage == "max@k" and not 1 <= config.rl.best_of < config.rl.group:
        raise InputError(f"rl.best_of: expected 1 to {config.rl.group - 1}, below rl.group, got {config.rl.best_of}")
    if config.rl.temperature <= 0:
        raise InputError(f"rl.temperature: expected more than 0, got {config.rl.temperature}; RL learns from samples")
    seeds = config.rl.seeds
    if not seeds or min(seeds) < 0 or len({*seeds}) < len(seeds):
        raise InputError(f"rl.seeds: expected different numbers of at least 0, got {seeds or 'none'}")


def at_rows(run: Run, domain: Domain | None, model: Model | None) -> None:
    """Rows and reward held against what ``opened`` gave. Raises InputError for what no later stage could work with."""
    if domain is None:
        return
    rows = run.splits
    if not len(rows.sft) or not len(rows.test):
        raise InputError("data: expected rows to train on and to test on, got none of one; look at the split's shares")
    for split in {id(split): split for split in (rows.sft, rows.train, rows.valid, rows.test)}.values():
        for row in _longest(split, isinstance(domain, BatchDomain)):
            encoded(domain, row, model, run.config)
    row, reject = rows.test[0], run.config.eval.reject
    try:
        [[(_, score)]] = judge(domain, [[answer_of(domain.encode(row))]], [row])
    except NonFinite as error:
        raise InputError(str(error)) from error
    if reject and reject not in score.parts:
        known = ", ".join(score.parts)
        raise InputError(f"eval.reject: expected a part of the score ({known}), got {reject!r}")
    _check_names(run, score.parts)


def _check_names(run: Run, parts: Collection[str]) -> None:
    """Raises InputError for a limit or ``checkpoints.best`` on what no stage will log, for a score of these parts."""
    config, sft, rl = run.config, run.config.sft, run.config.rl
    kinds = [kind for row in run.validated for kind in row.kind.split(", ") if kind]
    validated = [f"eval/{slice_}/{part}" for slice_ in {OVERALL, *kinds} for part in (*parts, "value", "malformed")]
    every = (sft.steps and sft.eval_every) or (rl.steps and (rl.eval_every or config.control.enabled))
    if (best := config.checkpoints.best.removeprefix("-")) and every:
        require("checkpoints.best", best, validated, "")
    for name in Guard(config.guards, config.checkpoints, collapses=True).named if rl.steps else ():
        require("guards.limits", name, [*LOGGED, *(f"score/{part}" for part in parts), *validated], "")


def opened(run: Run) -> tuple[Domain | None, Model | None]:
    """The domain and the model with which the run begins. Where something is trained before there is a model, the
    recipe's rehearsal stands in."""
    recipe, config, model = run.recipe, run.config, None
    if first := recipe.first_stage(config):
        domain = recipe.rehearse(config, run.splits, first.open())
    else:
        jobs.write_world(run)
        model, tokenizer = load_model(jobs.base_model(run))
        prepare(model, config.model.gradient_checkpointing)
        domain = recipe.domain(config, model, tokenizer, run.world)
    if domain is not None:
        recipe.check_data(config, domain)
    return domain, model


def encoded(domain: Domain, row: Transition, model: Model | None, config: Config) -> Script:
    """A row as tokens; InputError where it is not to be written so, or is longer than the model's window."""
    script = domain.encode(row)
    try:
        if model is not None:
            check_length(model, len(script.prompt), script.max_response)
    except InputError as error:
        mend = "; or raise model.context" if config.model.source == "scratch" else ""
        raise InputError(f"row {row.id}: {error}{mend}") from error
    return script


def answer_of(script: Script) -> list[tuple[int, ...]]:
    """The true answer's tokens as a sampler would give them, cut off at the longest."""
    written = []
    for segment in (s for s in script.tail if isinstance(s, Write)):
        ids = segment.target or ()
        written.append((ids[:-1] if ids and ids[-1] in segment.stop else ids)[: segment.max_tokens])
    return written


def _longest(rows: Sequence[Transition], pictures: bool) -> list[Transition]:
    """Some rows: those of the most characters; of pictures, which come to as many tokens each, the first."""
    some = [rows[i] for i in range(len(rows))[: 4 if pictures else KEPT]]
    return some if pictures else sorted(some, key=lambda r: len(str(r.state)) + len(str(r.next_state)))[-LOOKED:]
