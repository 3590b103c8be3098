"""Web-page recipes: MiniWoB++ pages played here and a small model, and the published settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.config import Config, ControlConfig, EvalConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains.splits import mix_unchanged
from rlvr_world.domains.web_page.config import BrowserSpec, WebPageConfig
from rlvr_world.errors import InputError
from rlvr_world.recipes import Splits
from rlvr_world.recipes.rows import RowsRecipe, reasoning_column, text_of
from rlvr_world.types import Transition

if TYPE_CHECKING:
    from rlvr_world.domains.row_files import OnFault
    from rlvr_world.domains.web_page.domain import WebPage
    from rlvr_world.models.head import Model
    from rlvr_world.models.text_tokenizer import TextTokenizer


def miniwob() -> Config:
    return Config(
        recipe="miniwob",
        summary="MiniWoB++ pages in a real browser, a 2M-parameter model from scratch, then RL (2 cores, extra web)",
        data=WebPageConfig(
            env=BrowserSpec(transitions=3600),
            max_prompt=400,
            max_response=128,
            unchanged_per_hundred=50.0,
            reward_beta=1.4,
        ),
        model=ModelConfig(vocabulary=1024, pieces="pages", hidden=192, layers=4, heads=4),
        sft=SFTConfig(
            steps=200,
            pretrain_steps=70,
            batch=32,
            optimizer=OptimizerConfig(2e-3, "cosine", warmup=0.05, weight_decay=0.1, beta2=0.98),
            save_every=50,
            eval_every=50,
        ),
        rl=RLConfig(
            steps=220,
            prompts=32,
            group=16,
            seeds=(0, 1, 2),
            optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.05, beta2=0.99),
            kl=0.02,
            entropy=0.03,
            eval_every=25,
        ),
        control=ControlConfig(learning_rate=1e-3),
        eval=EvalConfig(valid_rows=128),
    )


def webarena_published() -> Config:
    """The paper's web run (section 4.3; scripts ``run_web_agent_sft.sh``, ``run_web_agent_rl.sh``)."""
    return Config(
        recipe="webarena-published",
        summary="the published settings on webarena-world-model-cot (data.train, data.test; GPUs)",
        data=WebPageConfig(
            source="files",
            label="published",
            scoring="published",
            style="published",
            reasoning_column="answer",
            navigation_cap=0,
        ),
        model=ModelConfig(
            source="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            lora_rank=32,
            lora_alpha=16,
            device="cuda",
            precision="bfloat16",
            gradient_checkpointing=True,
        ),
        sft=SFTConfig(
            steps=31_730,  # 6,346 rows, batch 8, 40 epochs
            batch=8,
            forward_tokens=16384,
            reasoning=True,
            optimizer=OptimizerConfig(1e-5, "cosine", warmup=0.1, beta2=0.95),
        ),
        rl=RLConfig(
            steps=1485,  # 15 epochs
            prompts=64,
            group=5,
            minibatches=4,
            optimizer=OptimizerConfig(1e-6),
            forward_tokens=32768,
            entropy=0.001,
            drop_zero_variance=False,
        ),
        eval=EvalConfig(max_rows=256),
    )


class WebPageRecipe(RowsRecipe):
    def splits(self, config: Config) -> Splits:
        from rlvr_world.domains.web_page.envs.collect import collect_rows
        from rlvr_world.domains.web_page.splits import split_rows

        data: WebPageConfig = config.data
        path = str(collect_rows(data.env, data.cache)) if data.source == "browser" else data.train
        if not path:
            raise InputError("data.train: this recipe reads row files; give their path, as in data.train=rows.jsonl.gz")
        lost: list[str] = []
        rows = self.read(config, path, reasoning_column(config), lost=lost)
        rule = replace(data.split, worlds=0.0, test=0.0) if data.test else data.split
        train, valid, test = split_rows(rows, rule)
        seen = len(rows) - len(train) - len(valid) - len(test)
        if data.test:
            test = self.read(config, data.test, lost=lost)
        left_out = {"the browser lost the next page": len(lost), "held out, but the question stands in training": seen}
        if data.unchanged_per_hundred < 0:
            return Splits(train, train, valid, test, None, left_out)
        changed = [row for row in train if row.kind != "unchanged"]
        others = [row for row in train if row.kind == "unchanged"]
        epoch = partial(mix_unchanged, changed, others, data.unchanged_per_hundred)
        return Splits(train, train, valid, test, epoch, left_out)

    def read(
        self,
        config: Config,
        path: str,
        column: str = "",
        on_fault: OnFault = None,
        lost: list[str] | None = None,
    ) -> list[Transition]:
        """``lost`` gets the names of rows whose next page the browser lost; they are left out."""
        from rlvr_world.domains.web_page.rows import read_rows

        return read_rows(path, config.data.label, column, on_fault, lost)

    def files(self, config: Config) -> Mapping[str, str]:
        return {config.data.train: reasoning_column(config), config.data.test: ""}

    def domain(self, config: Config, model: Model, tokenizer: TextTokenizer | None, world: Path | None) -> WebPage:
        from rlvr_world.domains.web_page.domain import WebPage

        return WebPage(config.data, text_of(config, tokenizer))

    def texts(self, config: Config, splits: Splits) -> Iterator[str]:
        from rlvr_world.domains.web_page.prompt import build_answer, build_prompt

        style = config.data.style
        return (
            build_prompt(t.state, t.action, style) + build_answer(t.next_state.change, t.state, t.action, style)
            for t in splits.train
        )

    def question(self, given: Any) -> Transition:
        from rlvr_world.domains.web_page.rows import read_question

        return read_question(given)

    def shown(self, state: Any) -> str:
        return str(state.text)

    def protocol(self, config: Config) -> dict[str, Any]:
        names = (
            "style",
            "label",
            "scoring",
            "reward_beta",
            "changed_cap",
            "navigation_cap",
            "max_prompt",
            "max_response",
        )
        return {"domain": "web page", **{name: getattr(config.data, name) for name in names}}


RECIPES = {"miniwob": WebPageRecipe(miniwob), "webarena-published": WebPageRecipe(webarena_published)}
