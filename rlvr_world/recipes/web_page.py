"""Web-page recipes: MiniWoB++ pages played here and a small model, and the published settings; and which rows are
trained on and which are kept apart, other seeds of the same tasks and other tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.config import Config, ControlConfig, EvalConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains import splits
from rlvr_world.domains.row_files import OnFault, left_out, skipping
from rlvr_world.domains.splits import Parts, WorldSplitRule
from rlvr_world.domains.web_page.config import BrowserSpec, WebPageConfig, miniwob_tasks
from rlvr_world.domains.web_page.envs.collect import collect_rows
from rlvr_world.domains.web_page.envs.explorer import proposals
from rlvr_world.domains.web_page.prompt import aim, build_prompt
from rlvr_world.domains.web_page.rows import PageState, read_question, read_rows
from rlvr_world.recipes import Splits, rows
from rlvr_world.recipes.rows import RowsRecipe, reasoning_column
from rlvr_world.recipes.tasks import Task
from rlvr_world.types import Domain, Scene, Transition, World

if TYPE_CHECKING:
    from rlvr_world.domains.web_page.domain import WebPage
    from rlvr_world.models.text_tokenizer import TextTokenizer

SEEDS, TASKS, ROWS = "held-out seeds", "held-out tasks", "held-out rows"


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
            steps=200, pretrain_steps=70, batch=32, optimizer=rows.from_scratch(2e-3), save_every=50, eval_every=50
        ),
        rl=RLConfig(
            steps=220,
            prompts=32,
            group=16,
            seeds=(0, 1, 2),
            optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.05, beta2=0.99),
            kl=0.004,
            entropy=0.006,
            eval_every=25,
        ),
        control=ControlConfig(learning_rate=1e-3),
        eval=EvalConfig(valid_rows=128),
    )


def web() -> Config:
    """Pages of real size: prompts of up to 5,632 tokens, for a pretrained model that reads 8,192."""
    return Config(
        recipe="web",
        summary="pages of real size: a site of yours, or rows (data.train); SmolLM2-135M with LoRA (GPU; extra smollm)",
        data=WebPageConfig(source="files", max_prompt=5632, max_response=2560, unchanged_per_hundred=50.0),
        model=ModelConfig(source="smollm2", lora_rank=32, lora_alpha=16, gradient_checkpointing=True),
        sft=SFTConfig(
            steps=600,
            batch=16,
            forward_tokens=16384,
            optimizer=OptimizerConfig(5e-4, "cosine", warmup=0.1, beta2=0.95),
            eval_every=150,
        ),
        rl=RLConfig(steps=100, prompts=16, group=8, optimizer=OptimizerConfig(5e-5), forward_tokens=16384, max_rows=64),
        eval=EvalConfig(max_rows=64, valid_rows=64),
    )


def miniwob_goals() -> Config:
    """A proper reward for outcomes, since planners live on how sure the model is of them."""
    base = miniwob()
    return replace(
        base,
        recipe="miniwob-goals",
        summary="MiniWoB++ pages and whether the goal is reached, for planning (2 cores, extra web)",
        data=replace(
            base.data,
            env=BrowserSpec(tasks=miniwob_tasks("goals"), ends=1.0, episodes=200),
            style="outcome",
            unseen=miniwob_tasks("unseen"),
            split=WorldSplitRule(test=0.1, valid=0.05),
            unchanged_per_hundred=-1.0,
            outcome_reward="brier",
            outcome_weight=0.5,
        ),
        sft=replace(base.sft, steps=1200, optimizer=replace(base.sft.optimizer, kind="muon"), eval_every=100),
        rl=replace(base.rl, steps=60, group=8, seeds=(0,), advantage="none"),
        plan=replace(base.plan, starts=48, more=0, depth=2, width=4, goal="chance"),
    )


def webarena_published() -> Config:
    """The paper's web run (section 4.3; scripts ``run_web_agent_sft.sh``, ``run_web_agent_rl.sh``)."""
    return Config(
        recipe="webarena-published",
        summary="the published settings and rows, webarena-world-model-cot (GPUs)",
        data=WebPageConfig(
            source="files",
            train="thuml/webarena-world-model-cot:train",
            test="thuml/webarena-world-model-cot:test",
            label="published",
            scoring="published",
            style="row",
            skip_faulty=True,
            reasoning_column="answer",
            navigation_cap=0,
        ),
        model=rows.published_model("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
        sft=rows.published_sft(steps=31_730, batch=8),  # 6,346 rows, 40 epochs
        rl=rows.published_rl(steps=1485, prompts=64, minibatches=4),  # 15 epochs
        eval=EvalConfig(max_rows=256),
    )


class WebPageRecipe(RowsRecipe):
    question = staticmethod(read_question)

    def splits(self, config: Config) -> Splits:
        data: WebPageConfig = config.data
        path = str(collect_rows(data.env, data.cache)) if data.source == "browser" else rows.train_file(config)
        lost: list[str] = []
        on_fault, faults = skipping(data.skip_faulty)
        known = self.read(config, path, reasoning_column(config), on_fault, lost)
        rule = replace(data.split, worlds=0.0, test=0.0) if data.test else data.split
        train, valid, test = split_rows(known, rule)
        seen = len(known) - len(train) - len(valid) - len(test)
        if data.test:
            test = self.read(config, data.test, on_fault=on_fault, lost=lost)
        gone = {"the browser lost the next page": len(lost), "held out, but the question stands in training": seen}
        splits = rows.shared_out((train, valid, test), config, unit, lambda row: row.kind != "unchanged")
        return replace(splits, left_out=gone | left_out(faults))

    def read(
        self, config: Config, path: str, column: str = "", on_fault: OnFault = None, lost: list[str] | None = None
    ) -> list[Transition]:
        """``lost`` gets the names of rows whose next page the browser lost; they are left out."""
        data: WebPageConfig = config.data
        return read_rows(path, data.label, column, on_fault, lost, any_action=data.style == "row")

    def words(self, config: Config, tokenizer: TextTokenizer | None = None, world: Path | None = None) -> WebPage:
        from rlvr_world.domains.web_page.domain import WebPage

        return WebPage(config.data, tokenizer)

    def record(self, row: Transition) -> dict[str, Any]:
        state = {"observation": row.state.text, "url": row.state.url, "goal": row.state.goal}
        after = {"action": row.action, "next_observation": row.next_state.text, "previous": row.state.previous}
        return {**state, **after, "task": row.world}

    def scene(self, config: Config, domain: Domain) -> Scene:
        from rlvr_world.domains.scene import start_rows
        from rlvr_world.domains.web_page.scene import imagined_pages

        def first_pages() -> Sequence[Transition]:
            test = self.splits(config).test
            return [row for row in test if not row.state.previous] or test

        return imagined_pages(domain, start_rows(first_pages))

    def real(self, config: Config) -> World:
        if config.data.source != "browser":
            return super().real(config)
        from rlvr_world.domains.web_page.envs.played import RealPages

        env = config.data.env
        return RealPages(env, env.seed + env.episodes)  # pages that no row is of

    def tasks(self, config: Config) -> dict[str, Task]:
        """MiniWoB's, of those that were trained on and of others, on pages that no collection reaches."""
        data: WebPageConfig = config.data
        if data.source != "browser" or data.env.site != "miniwob" or data.style != "outcome":
            return {}
        from rlvr_world.domains.replayed import seen_in
        from rlvr_world.domains.web_page.envs.played import RealPages

        def page(state: Any) -> PageState:
            return read_question({"state": seen_in(state), "action": ""}).state

        def actions(state: Any) -> list[str]:
            return proposals(page(state), state.done, data.env.ends)

        def first(key: Callable[[int], Any], state: Any) -> Any:
            """The proposal that a key of where the goal names it puts first."""
            seen = page(state)
            return min(actions(state), key=lambda one: key(aim(seen, one)), default=None)

        rules = {
            "most frequent": partial(first, lambda place: 0),
            "hand rule": partial(first, lambda place: place < 0),
            "hand rule, in the goal's order": partial(first, lambda place: (place < 0, place)),
        }
        real = RealPages(data.env, remember=True)
        named = {"trained tasks": data.env.tasks or miniwob_tasks("shown"), "unseen tasks": data.unseen}
        begin = {name: {task: {"task": task} for task in tasks} for name, tasks in named.items() if tasks}
        play = partial(Task, real, actions=actions, rules=rules, horizon=data.env.steps, seed=FRESH)
        return {name: play(starts=starts) for name, starts in begin.items()}

    def shown(self, state: Any) -> str:
        return str(state.text)

    def protocol(self, config: Config) -> dict[str, Any]:
        names = ["style", "label", "scoring", "reward_beta", "outcome_weight", "outcome_reward"]
        names += ["changed_cap", "navigation_cap", "max_prompt", "max_response"]
        return {"domain": "web page", **{name: getattr(config.data, name) for name in names}}


FRESH = 1_000_000
"""The first seed of the pages that planners are tried on."""
RECIPES = {made.__name__.replace("_", "-"): made for made in (miniwob, miniwob_goals, web, webarena_published)}


def split_rows(rows: Sequence[Transition], rule: WorldSplitRule) -> Parts:
    """Training, validation and test rows: worlds are tasks, variants of a task together, and units are episodes. Rows
    of a task without seeds are one unit, because nothing tells its episodes apart. Rows whose question stands in the
    training rows are not held out: simple tasks look the same under every seed."""

    def label(row: Transition, whole_task: bool) -> str:
        if whole_task or (row.world and not row.state.episode):
            return TASKS
        return SEEDS if row.state.episode else ROWS

    train, valid, test = splits.split_rows(rows, rule, unit, family=family, label=label)
    seen = {question(row) for row in train}
    valid, test = ([row for row in part if question(row) not in seen] for part in (valid, test))
    return train, valid, test


def unit(row: Transition) -> str:
    """The episode of a row, as far as something tells it from others."""
    return str(row.state.episode or row.world or row.id)


def family(task: str) -> str:
    """What variants of a task have in common: two words, ``click-tab`` of ``click-tab-2-hard``."""
    return "-".join(task.split("-")[:2])


def question(row: Transition) -> str:
    """What a compact prompt asks: the page without its browser ids, and the action."""
    return build_prompt(row.state, row.action, "compact")
