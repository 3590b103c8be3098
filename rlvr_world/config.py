"""Every setting of a run, as nested dataclasses. A recipe returns a whole ``Config``; ``a.b=c`` overrides a field.

``what`` attaches the sentence and the unit that ``--help`` prints. What a setting of the unit ``path`` names is made
absolute in a run's config.json, with a digest of what stands there; ``folder`` is one that the run writes to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr_world.errors import InputError


def what(default: Any, text: str, unit: str = "") -> Any:
    """A dataclass field with its help text and unit."""
    return field(default=default, metadata={"help": text, "unit": unit})


def at_least(settings: Any, group: str = "", **least: float) -> None:
    """Raises InputError that names the first field that is below its least value; ``group`` is where it stands."""
    for setting, lowest in least.items():
        if not (got := getattr(settings, setting)) >= lowest:
            raise InputError(f"{group}{setting}: expected at least {lowest:g}, got {got}")


@dataclass(frozen=True)
class ModelConfig:
    source: str = what("scratch", "'scratch', 'smollm2', a local folder, or a Hugging Face hub id", "path")
    vocabulary: int = what(4096, "from scratch: size of the tokenizer trained on the rows", "tokens")
    pieces: Literal["fields", "strings", "names", "pages"] = what(
        "strings",
        "from scratch: longest text that one token can hold: a 'key: value,' field, a string of its own, a field "
        "without the names such as 'glove (ID: 2)' in it, or a word or the properties of a web page's node",
    )
    hidden: int = what(256, "from scratch: hidden size", "features")
    layers: int = what(6, "from scratch: transformer layers", "layers")
    heads: int = what(4, "from scratch: attention heads", "heads")
    intermediate: int = what(0, "from scratch: MLP width; 0 takes 8/3 of hidden", "features")
    tied: bool = what(True, "from scratch: the head shares the embedding's weights")
    context: int = what(2048, "from scratch: longest sequence (position embeddings)", "tokens")
    lora_rank: int = what(0, "rank of LoRA adapters on all linear layers; 0 trains every weight", "rank")
    lora_alpha: int = what(16, "LoRA scale numerator (the update is scaled by alpha/rank)")
    lora_stages: Literal["all", "sft"] = what(
        "all", "which stages train adapters: all, or 'sft' alone, so that RL and its control train every weight"
    )
    gradient_checkpointing: bool = what(False, "recompute activations in the backward pass to save memory")
    shard: bool = what(False, "under torchrun: weights and optimizer in shares on all ranks (FSDP2), not a copy a rank")
    device: Literal["auto", "cpu", "cuda"] = what("auto", "auto takes a CUDA GPU, or the CPU; Apple's mps is not used")
    precision: Literal["auto", "float32", "bfloat16"] = what(
        "auto", "forwards in this type (trained weights stay float32); 'auto' is bfloat16 where the processor has it"
    )


def check_shape(model: ModelConfig) -> None:
    """Raises InputError for a hidden size that the heads cannot share."""
    if model.hidden % (2 * model.heads):
        raise InputError(f"model.hidden: expected a multiple of 2 x model.heads, got {model.hidden} and {model.heads}")


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = what(1e-3, "peak learning rate")
    schedule: Literal["constant", "cosine"] = what("constant", "after warm-up: keep the rate, or follow a cosine to 0")
    warmup: float = what(0.0, "linear warm-up", "fraction of the stage")
    weight_decay: float = what(0.01, "decoupled weight decay")
    beta1: float = what(0.9, "AdamW first-moment decay")
    beta2: float = what(0.999, "AdamW second-moment decay")
    clip_norm: float = what(1.0, "largest gradient norm", "L2 norm")
    kind: Literal["adamw", "muon"] = what(
        "adamw", "AdamW for every weight, or Muon for the matrices between embedding and head, which learn faster so"
    )


@dataclass(frozen=True)
class SFTConfig:
    steps: int = what(400, "optimizer steps", "steps")
    pretrain_steps: int = what(
        0, "first steps that fit the prompt too, so that a model from scratch learns to copy from it", "steps"
    )
    batch: int = what(64, "rows a step", "rows")
    forward_tokens: int = what(4096, "tokens packed into one forward (memory and speed, not the loss)", "tokens")
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reasoning: bool = what(False, "fit the given chain of thought and answer instead of the direct answer")
    save_every: int = what(100, "checkpoint interval", "steps")
    eval_every: int = what(0, "validation interval; 0 never", "steps")


@dataclass(frozen=True)
class RLConfig:
    steps: int = what(50, "rollout steps; 0 leaves this stage out", "steps")
    prompts: int = what(32, "prompts a step", "prompts")
    group: int = what(8, "rollouts a prompt", "rollouts")
    minibatches: int = what(1, "optimizer updates a step; rollouts are split among them by prompt", "updates")
    seeds: tuple[int, ...] = what((0,), "one run a seed: its prompts, its draws")
    temperature: float = what(1.0, "sampling temperature of rollouts")
    max_rows: int = what(512, "rollouts that grow at once (memory)", "rollouts")
    forward_tokens: int = what(4096, "tokens packed into one forward (memory and speed, not the loss)", "tokens")
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    advantage: Literal["group", "none", "batch", "max@k"] = what(
        "group",
        "divide centred rewards by the group's deviation (GRPO), by nothing (Dr.GRPO), the batch's; or max@k",
    )
    best_of: int = what(4, "advantage=max@k: learn what a rollout adds to the best of so many, below rl.group", "draws")
    aggregation: Literal["sequence", "token", "constant"] = what(
        "token",
        "mean over tokens of each rollout then rollouts (GRPO), over all tokens (as published), or by the "
        "longest possible response (Dr.GRPO)",
    )
    ratio: Literal["token", "sequence"] = what(
        "token", "probability ratio of each token (GRPO), or its geometric mean over the rollout (GSPO)"
    )
    clip_low: float = what(0.2, "ratio is clipped at 1 - this")
    clip_high: float = what(0.2, "ratio is clipped at 1 + this; larger than clip_low is clip-higher (DAPO)")
    kl: float = what(0.001, "KL coefficient in the loss; 0 also saves the reference forward")
    kl_estimator: Literal["k1", "k2", "k3"] = what("k3", "k3 is the low-variance estimator of the paper")
    entropy: float = what(0.0, "entropy bonus coefficient", "loss per nat")
    drop_zero_variance: bool = what(
        True, "leave groups of equal rewards out of the update where kl and entropy are 0, and they add nothing to it"
    )
    dynamic_sampling: int = what(
        0,
        "DAPO: sample up to so many batches of prompts a step, until rl.prompts groups have different rewards, and "
        "learn from these alone; 0 learns from one batch as it is",
        "batches",
    )
    draw: Literal["even", "spread"] = what(
        "even", "draw rows alike, or by the deviation of the rewards that their groups last had"
    )
    save_every: int = what(20, "checkpoint interval", "steps")
    eval_every: int = what(10, "validation interval; 0 never", "steps")


@dataclass(frozen=True)
class RolloutConfig:
    urls: tuple[str, ...] = what((), "vLLM servers that sample for RL, such as http://node1:8000; none: sample here")
    timeout: float = what(600.0, "longest wait for an answer", "seconds")
    band: float = what(5.0, "no loss on tokens whose probability is off the server's by more than this factor; 0: all")

    def __post_init__(self) -> None:
        at_least(self, "rollout.", timeout=1)
        if self.band and not self.band > 1:
            raise InputError(f"rollout.band: expected a factor above 1, or 0 for none, got {self.band}")


@dataclass(frozen=True)
class ControlConfig:
    enabled: bool = what(True, "train the RL start on by SFT for as many tokens as RL processed, one run a seed")
    learning_rate: float | None = what(None, "peak learning rate of the control; none takes that of SFT, as all else")


@dataclass(frozen=True)
class EvalConfig:
    rows: int = what(0, "test rows, spread over the split; 0 takes all", "rows")
    valid_rows: int = what(256, "validation rows used during training, spread over the split", "rows")
    temperature: float = what(0.0, "sampling temperature; 0 takes the most likely token")
    top_k: int = what(0, "sample among the k most likely tokens; 0 among all", "tokens")
    runs: int = what(1, "sampling runs over the test rows; results are means over runs", "runs")
    reject: str = what("", "draw again where this 0/1 part of the score is 1, such as repetition; empty keeps all")
    reject_attempts: int = what(10, "most draws of a row under eval.reject", "draws")
    samples: int = what(0, "samples a row at temperature 1 for best-of-N, besides; 0 leaves this out", "samples")
    sample_rows: int = what(256, "test rows used for best-of-N, spread over the split; 0 takes all", "rows")
    max_rows: int = what(512, "rollouts that grow at once (memory)", "rollouts")


@dataclass(frozen=True)
class PlanConfig:
    starts: int = what(0, "starts that planners are tried from at the end of a run, of each task; 0 none", "starts")
    distances: tuple[int, ...] = what((2, 3, 4), "how far the goal is from a start, in the real world", "actions")
    more: int = what(1, "actions that a planner has beyond the shortest way", "actions")
    depth: int = what(3, "actions looked ahead, before the one that reaches the goal", "actions")
    width: int = what(8, "imagined states of each depth that are looked on from", "states")
    samples: int = what(1, "futures imagined of each action, which differ where temperature is above 0", "samples")
    temperature: float = what(0.0, "temperature of what is imagined")
    seed: int = what(0, "other draws of planners, and of what is imagined where temperature is above 0")
    seconds: float = what(0.0, "time after which no depth or round is begun, for each action; 0 for no limit", "s")
    goal: Literal["state", "score", "chance"] = what(
        "state", "ends a plan: the goal holds in the imagined state, or a score won; chance: the likeliest to win"
    )
    solver: Literal["cem", "mppi"] = what("cem", "how numbers that lead to a goal frame are searched for (video)")
    candidates: int = what(64, "plans that it imagines in a round", "plans")
    rounds: int = what(3, "its rounds before an action is done", "rounds")
    simulator: bool = what(False, "and search so in the simulator itself: slow, as it is run again for every plan")

    def __post_init__(self) -> None:
        at_least(self, starts=0, more=0, depth=1, width=1, samples=1, candidates=1, rounds=1)
        at_least(self, temperature=0, seconds=0, seed=0)
        if not self.distances or min(self.distances) < 1:
            raise InputError(f"distances: expected numbers of at least 1, such as 2,3,4, got {self.distances}")


@dataclass(frozen=True)
class CheckpointConfig:
    keep: int = what(2, "last checkpoints kept of each stage", "checkpoints")
    best: str = what(
        "eval/overall/value",
        "also keep the checkpoint where validation found this highest (lowest, with a minus before it); empty: none",
    )


@dataclass(frozen=True)
class GuardConfig:
    finite: bool = what(True, "stop before an update whose loss, gradients or weights are not finite")
    flat_steps: int = what(20, "stop after so many RL steps in a row without spread of rewards; 0 never", "steps")
    still_steps: int = what(
        20, "stop after so many steps in a row without a gradient, or without a change of weights; 0 never", "steps"
    )
    logp_gap: float = what(
        2.0, "stop where trainer and sampler differ by more on the log-probability of a token; 0 never", "nats"
    )
    limits: tuple[str, ...] = what(
        ("kl<=20", "malformed<=0.9"),
        "collapse: a number of the log that leaves its limit after it has kept it, such as entropy>=0.01",
    )
    drop: float = what(
        0.3, "collapse: checkpoints.best falls by more than this share of its best (at least 0.02); 0 never", "share"
    )
    patience: int = what(3, "collapse: so many in a row, of steps for limits and of validations for drop", "times")
    collapse: Literal["stop", "rollback"] = what(
        "stop", "what a collapse does: stop the run, or end the stage with its best verified checkpoint"
    )


@dataclass(frozen=True)
class RecordConfig:
    extremes: int = what(2, "rollouts of highest and of lowest reward kept of each RL step, so many each", "rollouts")
    sample: int = what(4, "further rollouts kept of each RL step, chosen by the seed", "rollouts")
    megabytes: float = what(64.0, "most that the kept rollouts of a stage take; beyond it every other step goes", "MB")


@dataclass(frozen=True)
class Config:
    recipe: str = what("", "the recipe this config came from")
    summary: str = what("", "what the recipe is for")
    seed: int = what(0, "seed of the model's initial weights, SFT order and splits; worlds played here have their own")
    threads: int = what(0, "CPU threads; 0 takes torch's default", "threads")
    data: Any = field(default=None)
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    trackers: tuple[str, ...] = what((), "also log to: tensorboard, trackio, wandb")
