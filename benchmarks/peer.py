"""TRL's GRPOTrainer at the benchmark's work (extra ``peers``)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.work import EOS, LEARNING_RATE, PAD, SHAPES, Stopwatch, memory, new_model, prompts, reward


def run(settings: dict[str, Any], asked: Callable[[], bool], say: Callable[[dict[str, Any]], None]) -> None:
    shape = SHAPES[settings["shape"]]
    with tempfile.TemporaryDirectory() as folder:
        new_model(shape.prompt + shape.response).save_pretrained(folder)
        words = {f"t{i}": i for i in range(PAD)} | {"<pad>": PAD, "<eos>": EOS}
        plain = Tokenizer(WordLevel(words, unk_token="t0"))
        plain.pre_tokenizer = WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="t0", padding_side="left"
        )
        rollouts = shape.prompts * shape.group
        micro = min(settings["micro_batch"], rollouts)
        config = GRPOConfig(
            output_dir=str(Path(folder) / "out"),
            use_cpu=True,
            bf16=settings["precision"] == "bfloat16",
            gradient_checkpointing=False,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=rollouts // micro,
            steps_per_generation=rollouts // micro,
            num_generations=shape.group,
            max_completion_length=shape.response,
            temperature=1.0,
            beta=0.0,
            loss_type="grpo",
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_steps=10**6,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        texts = [" ".join(f"t{i}" for i in ids) for ids in prompts(shape, 256)]
        trainer = _Timed(
            model=folder,
            reward_funcs=lambda completion_ids, **_: [reward(ids) for ids in completion_ids],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=tokenizer,
        )
        trainer.add_callback(_Turns(trainer, asked, say))
        say({"memory": memory("held")})
        trainer.train()


class _Timed(GRPOTrainer):
    """Adds up where the seconds of a step go."""

    def __init__(self, **settings: Any) -> None:
        self.laps: dict[str, float] = {}
        super().__init__(**settings)

    def _lap(self, name: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            self.laps[name] = self.laps.get(name, 0.0) + time.perf_counter() - started

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        return self._lap("rollout", super()._generate_single_turn, *args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        return self._lap("reward", super()._calculate_rewards, *args, **kwargs)

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is printed."""


class _Turns(TrainerCallback):
    """Lets the trainer do one step for every request."""

    def __init__(self, trainer: _Timed, asked: Callable[[], bool], say: Callable[[dict[str, Any]], None]) -> None:
        self.trainer, self.asked, self.say = trainer, asked, say

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.asked():
            raise SystemExit
        self.trainer.laps.clear()
        self.watch = Stopwatch()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        spent, laps = self.watch.read(), dict(self.trainer.laps)
        laps["update"] = spent["wall"] - sum(laps.values())
        self.say({**spent, "phases": laps, "memory": memory("peak")})
