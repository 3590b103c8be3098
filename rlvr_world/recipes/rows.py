"""What recipes over files of text rows share: files and their faults, what RL draws, settings, the text tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.config import Config, ModelConfig, OptimizerConfig, RLConfig, SFTConfig, at_least, check_shape
from rlvr_world.domains.row_files import OnFault, left_out, locate, skipping
from rlvr_world.domains.splits import Parts, Unit, deduplicate, evened, held_out, mix_unchanged, split_rows
from rlvr_world.errors import InputError
from rlvr_world.recipes import Recipe, Splits
from rlvr_world.types import Rows, Transition

if TYPE_CHECKING:
    import numpy as np

    from rlvr_world.domains.text_domain import TextDomain
    from rlvr_world.models.head import Model
    from rlvr_world.models.text_tokenizer import TextTokenizer


Changed = Callable[[Transition], bool]
"""Whether RL is to draw a row for what it changes."""


class RowsRecipe(Recipe):
    """A recipe whose rows are files of text, or are played into such files."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    def config(self) -> Config:
        return self._config()

    def check_config(self, config: Config) -> None:
        if config.model.source == "scratch":
            check_shape(config.model)
            at_least(config.model, "model.", vocabulary=259)  # all bytes, and the marks
        if config.sft.reasoning and has_likelihood(config):
            column, source = config.data.reasoning_column, config.data.source
            if not column or source != "files":
                got = f"got {column!r} with data.source={source}; name it, or set sft.reasoning=false"
                raise InputError(f"data.reasoning_column: expected a column of files with sft.reasoning=true, {got}")
        for path in filter(None, self.files(config)) if config.data.source == "files" else ():
            locate(path, "training or test")

    @abstractmethod
    def read(self, config: Config, path: str, column: str = "", on_fault: OnFault = None) -> list[Transition]:
        """The rows of a file; ``column`` holds their reasoning."""

    @abstractmethod
    def words(self, config: Config, tokenizer: TextTokenizer | None = None, world: Path | None = None) -> TextDomain:
        """The domain; without a tokenizer for its words alone."""

    @abstractmethod
    def record(self, row: Transition) -> dict[str, Any]:
        """The row as ``read`` reads it."""

    def domain(self, config: Config, model: Model, tokenizer: TextTokenizer | None, world: Path | None) -> TextDomain:
        if tokenizer is None:
            got = "one without a tokenizer"
            raise InputError(f"model.source={config.model.source}: expected a model of text, got {got}")
        return self.words(config, tokenizer, world)

    def texts(self, config: Config, splits: Splits) -> Iterator[str]:
        words = self.words(config)
        return (words.prompt(row) + words.answer(row) for row in splits.train)

    def of_files(
        self, config: Config, unit: Unit, changed: Changed, sft: str = "", played: Parts | None = None
    ) -> Splits:
        """The splits of the files that the config names, or of rows that were ``played``; rows of one ``unit`` go
        together. ``changed`` are those that RL is to draw, with some of the others; ``sft`` is a file of SFT's own."""
        column = reasoning_column(config)
        on_fault, faults = skipping(config.data.skip_faulty)
        parts = played or self._parts(config, unit, on_fault, "" if sft else column)
        own = self.read(config, sft, column, on_fault) if sft and has_likelihood(config) else None
        return replace(shared_out(parts, config, unit, changed, own), left_out=left_out(faults))

    def _parts(self, config: Config, unit: Unit, on_fault: OnFault, column: str) -> Parts:
        """Training, validation and test rows. Where some test rows also stand in training, the others are ``new``
        besides, as a slice of their own."""
        data = config.data
        train = self.read(config, train_file(config), column, on_fault)
        if not data.test:
            return split_rows(train, data.split, unit)
        test = self.read(config, data.test, on_fault=on_fault)
        if data.deduplicate:
            train = deduplicate(train, test, unit)
        if data.split.worlds:
            worlds = sorted({row.world for row in train})
            held = set(held_out(worlds, data.split.worlds, data.split.seed, "worlds"))
            train = [row for row in train if row.world not in held]
            test = [row for row in test if row.world in held]
        seen = set(map(unit, train))
        if not seen.isdisjoint(map(unit, test)):
            test = [r if unit(r) in seen else replace(r, kind=f"{r.kind}, new, new {r.kind}") for r in test]
        train, valid, _ = split_rows(train, replace(data.split, test=0.0, worlds=0.0), unit)
        return train, valid, test

    def files(self, config: Config) -> Mapping[str, str]:
        """The row files that the config names, with the column of each that holds reasoning."""
        return {config.data.train: reasoning_column(config), config.data.test: ""}

    def lengths(self, config: Config) -> tuple[int, int, int]:
        return config.model.vocabulary, config.data.max_prompt, config.data.max_response

    def inspect(self, config: Config, out: Path) -> str:
        """Rows by split, the tokens of prompts and answers, faults, and some rows that change something."""
        import numpy as np

        splits = self.splits(config)
        domain, lengths_N2 = self.measured(config, splits)
        lines = ["| split | rows | worlds |", "|---|--:|--:|"]
        for name, rows in (("train", splits.train), ("valid", splits.valid), ("test", splits.test)):
            lines.append(f"| {name} | {len(rows)} | {len({row.world for row in rows})} |")
        lines += ["", "| tokens | median | 95 % | longest |", "|---|--:|--:|--:|"]
        for name, counts in zip(("prompt", "answer"), lengths_N2.T, strict=True):
            lines.append(f"| {name} | {np.median(counts):g} | {np.quantile(counts, 0.95):g} | {counts.max()} |")
        faults = self.row_faults(config)
        lines += ["", f"faults: {len(faults) or 'none'}", *(f"- {fault}" for fault in faults[:10])]
        changed = [row for row in splits.train if not row.kind.startswith("unchanged")] or splits.train
        for row in changed[:: -(-len(changed) // 3)]:
            answer = domain.encode(row).target_ids()[0][:-1]
            lines += ["", f"{row.id} {row.world}", str(domain.explain(domain.decode([answer], row), row))]
        return "\n".join(lines)

    def measured(self, config: Config, splits: Splits) -> tuple[TextDomain, np.ndarray]:
        """The domain with its text tokenizer but no model, and the tokens of prompts and answers, int [N, 2], of rows
        spread evenly."""
        import numpy as np

        from rlvr_world.models.loading import load_model
        from rlvr_world.models.text_tokenizer import train_text_tokenizer

        shape, endless = config.model, replace(config.data, max_prompt=10**9, max_response=10**9)
        tokenizer = None if shape.source == "scratch" else load_model(shape.source)[1]
        tokenizer = tokenizer or train_text_tokenizer(self.texts(config, splits), shape.vocabulary, shape.pieces)
        domain = self.domain(replace(config, data=endless), None, tokenizer, None)  # type: ignore[arg-type]
        rows = [*splits.train, *splits.test]
        scripts = [domain.encode(row) for row in rows[:: -(-len(rows) // 1000)]]
        return domain, np.array([[len(script.prompt), len(script.target_ids()[0])] for script in scripts])

    def row_faults(self, config: Config) -> list[str]:
        on_fault, faults = skipping(skip_faulty=True)
        for path, column in self.files(config).items() if config.data.source == "files" else ():
            try:
                if path:
                    self.read(config, path, column, on_fault)
            except InputError:
                if not faults:
                    raise
        return faults


def train_file(config: Config) -> str:
    if not config.data.train:
        raise InputError("data.train: this recipe reads row files; give their path, as in data.train=train.jsonl.gz")
    return str(config.data.train)


def reasoning_column(config: Config) -> str:
    """The column of reasoning that likelihood training fits; empty for none."""
    return config.data.reasoning_column if config.sft.reasoning and has_likelihood(config) else ""


def has_likelihood(config: Config) -> bool:
    """Whether a stage of likelihood training is to run."""
    return bool(config.sft.steps or config.control.enabled)


def shared_out(parts: Sequence[Rows], config: Config, unit: Unit, changed: Changed, sft: Rows | None = None) -> Splits:
    """Training, validation and test rows as splits, the training rows shared out between SFT and RL as the config says;
    rows of one ``unit`` go the same way. ``sft`` are SFT's rows, where they are others."""
    train, valid, test = parts
    rule, control = config.data.split, None
    if rule.sft and sft is not None:
        raise InputError("data.split.sft: expected 0 with data.sft_train, which says what SFT fits; leave one out")
    if rule.sft:
        apart = set(held_out(list(dict.fromkeys(map(unit, train))), rule.sft, rule.seed, "units for SFT"))
        sft, train = [row for row in train if unit(row) in apart], [row for row in train if unit(row) not in apart]
        control = evened(train, config.data.even, config.seed)
    fitted = evened(train if sft is None else sft, config.data.even, config.seed)
    return Splits(fitted, train, valid, test, drawn(train, config, changed), control=control)


def drawn(rows: Rows, config: Config, changed: Changed) -> Callable[[int, int], Rows] | None:
    """What RL draws from in each epoch: those that are ``changed`` and some others, and verbs evenly, as the config
    says; None for all rows as they come."""
    data, mixed = config.data, None
    if data.unchanged_per_hundred >= 0:
        parts: tuple[list[Transition], list[Transition]] = ([], [])
        for row in rows:
            parts[not changed(row)].append(row)
        mixed = partial(mix_unchanged, *parts, data.unchanged_per_hundred)
    if not data.even:
        return mixed
    return lambda seed, epoch: evened(mixed(seed, epoch) if mixed else rows, data.even, seed, epoch)


def from_scratch(rate: float) -> OptimizerConfig:
    """For likelihood training of small models from random weights."""
    return OptimizerConfig(rate, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98)


def published_model(source: str) -> ModelConfig:
    """The paper's: SFT trains adapters, RL every weight."""
    return ModelConfig(
        source=source,
        lora_rank=32,
        lora_alpha=16,
        lora_stages="sft",
        device="cuda",
        precision="bfloat16",
        gradient_checkpointing=True,
    )


def published_sft(steps: int, batch: int) -> SFTConfig:
    """What the paper's scripts share, as do the two beside it."""
    optimizer = OptimizerConfig(1e-5, "cosine", warmup=0.1, beta2=0.95)
    return SFTConfig(steps=steps, batch=batch, forward_tokens=16384, reasoning=True, optimizer=optimizer)


def published_rl(steps: int, prompts: int, minibatches: int) -> RLConfig:
    return RLConfig(
        steps=steps,
        prompts=prompts,
        group=5,
        minibatches=minibatches,
        optimizer=OptimizerConfig(1e-6),
        forward_tokens=32768,
        max_rows=128,
        entropy=0.001,
        drop_zero_variance=False,
    )
