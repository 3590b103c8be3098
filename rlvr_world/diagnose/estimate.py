"""What a recipe would take, before there is a machine for it: parameters, memory by part, tokens, FLOP and hours.

Counted without weights, for the longest prompts and answers; a GPU holds the model, or with ``model.shard`` its share.
FLOP: two a weight and token forward, twice that backward (once where it is frozen), and attention's products.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rlvr_world import recipes
from rlvr_world.config import Config, ModelConfig
from rlvr_world.models.device import check_device, compute_dtype
from rlvr_world.models.loading import hollow_model
from rlvr_world.runs.jobs import after_sft
from rlvr_world.system.memory import device_memory
from rlvr_world.system.progress import clock
from rlvr_world.training.sft import peak_flops

ACTIVATIONS, CACHE = "activations", "keys and values of rollouts"


def estimate(config: Config, gpus: int, memory: float, teraflops: float, share: float) -> tuple[bool, str]:
    """Whether both stages fit into ``memory`` GB a GPU, and what each takes; where one does not fit, the setting to
    change. ``share``: what training reaches of a GPU's ``teraflops`` (10^12 FLOP a second)."""
    vocabulary, prompt, response = recipes.find(config.recipe).lengths(config)
    model = hollow_model(config.model, vocabulary, prompt + response)
    all_fit, lines = True, ["| stage | part | GB a GPU |", "|---|---|--:|"]
    told = []
    for name, settings in (("sft", config.model), ("rl", after_sft(config).model)):
        stage = getattr(config, name)
        if not stage.steps:
            continue
        weights, trained = _weights(model, settings.lora_rank)
        parts = _memory(model, settings, stage, (prompt, response), gpus if settings.shard else 1)
        most = sum(parts.values()) - min(parts[ACTIVATIONS], parts[CACHE])
        all_fit &= most <= memory
        said = "fits" if most <= memory else f"DOES NOT FIT: {_advice(name, parts, memory, settings)}"
        lines += [f"| {name} | {part} | {size:.2f} |" for part, size in parts.items() if size]
        lines.append(f"| {name} | at most at once | {most:.2f} |")
        tokens, flop = _step(model, settings, stage, (prompt, response))
        took = f"{clock(stage.steps * flop / (gpus * teraflops * 1e12 * share))} at {share:.0%}"
        told += [
            f"{name}: {weights:,} parameters, {trained:,} trained; {said}",
            f"{name}: {tokens:,} tokens and {flop:.2e} FLOP a step, {stage.steps} steps of the longest rows: {took}",
        ]
    return all_fit, "\n".join([*lines, "", *told])


def estimate_here(config: Config) -> str:
    """The estimate for this machine, by what a product of matrices reaches on it."""
    device = check_device(config.model.device)
    teraflops = peak_flops(device, compute_dtype(config.model.precision, device)) / 1e12
    recipe = recipes.find(config.recipe)
    (_, prompt, answer), first = recipe.lengths(config), recipe.first_stage(config)
    said = f"tokens: at most {prompt} a prompt, {answer} an answer; this machine: {teraflops:.3g} TFLOP/s"
    apart = f"not counted: the {first.steps} steps of the {first.name} before all else\n" if first else ""
    return f"{estimate(config, 1, device_memory(device) / 1e9, teraflops, 0.3)[1]}\n{apart}{said}"


def _weights(model: Any, rank: int) -> tuple[int, int]:
    """All weights, and those that are trained."""
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    adapters = rank * sum(m.in_features + m.out_features for m in linear)
    whole = sum(p.numel() for p in model.parameters()) + adapters
    return whole, adapters or whole


def _memory(model: Any, settings: ModelConfig, stage: Any, lengths: tuple[int, int], of: int = 1) -> dict[str, float]:
    """GB by part where the model is shared out among ``of`` GPUs; the last two are never there together."""
    (weights, trained), shape, (prompt, response) = _weights(model, settings.lora_rank), model.config, lengths
    number, group = 4 if settings.precision == "float32" else 2, getattr(stage, "group", 1)
    parts = {"weights, float32": 4.0 * weights / of, "gradients and AdamW's moments": 12.0 * trained / of}
    if number == 2 or of > 1:
        parts["their bfloat16 copy" if number == 2 else "all of them, gathered"] = float(number * weights)
    if getattr(stage, "kl", 0) and not settings.lora_rank:
        parts["reference model"] = float((number if of == 1 else 4 / of) * weights)
    layers, width = shape.num_hidden_layers, shape.hidden_size
    layer, again = 10 * width + 4 * shape.intermediate_size, settings.gradient_checkpointing
    tokens = max(stage.forward_tokens, prompt + group * response)
    parts[ACTIVATIONS] = float(number * tokens * (layers * width + layer if again else layers * layer))
    rows = min(stage.max_rows, stage.prompts * group) if group > 1 else 0
    depth = getattr(shape, "head_dim", None) or width // shape.num_attention_heads
    slots = rows * response + rows // group * prompt
    parts[CACHE] = 2.0 * number * layers * shape.num_key_value_heads * depth * slots
    return {part: size / 1e9 for part, size in parts.items()}


def _advice(name: str, parts: dict[str, float], memory: float, settings: ModelConfig) -> str:
    """What to change where a stage does not fit."""
    held = sum(parts.values()) - parts[ACTIVATIONS] - parts[CACHE]
    if held > memory:
        mend = "take a smaller model" if settings.lora_rank else "set model.lora_rank, and model.lora_stages=all"
        return mend if settings.shard else f"on several GPUs set model.shard=true; else {mend}"
    if held + parts[CACHE] > memory:
        return "lower rl.max_rows"
    again = settings.gradient_checkpointing
    return f"lower {name}.forward_tokens" if again else "set model.gradient_checkpointing=true"


def _step(model: Any, settings: ModelConfig, stage: Any, lengths: tuple[int, int]) -> tuple[int, float]:
    """Tokens of all forwards that a step counts, and its FLOP."""
    (weights, trained), shape, (prompt, response) = _weights(model, settings.lora_rank), model.config, lengths
    rl = hasattr(stage, "group")
    answers = stage.prompts * stage.group * response if rl else stage.batch * response
    tokens = (stage.prompts if rl else stage.batch) * prompt + answers
    tables = model.get_input_embeddings().weight.numel(), model.get_output_embeddings().weight.numel()
    body = weights - (tables[0] if shape.tie_word_embeddings else sum(tables))
    products = shape.num_hidden_layers * shape.hidden_size * (prompt + response)
    forward = 2.0 * tokens * (body + products) + 2.0 * answers * tables[1]
    passes = 2 + trained / weights + (1 + bool(stage.kl and not settings.lora_rank) if rl else 0)
    return tokens * (1 + rl), forward * passes
