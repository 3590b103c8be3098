"""What sampling and training rely on in a model, tried on a few tokens before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from rlvr_world.errors import InputError
from rlvr_world.models.attention import GroupCache, Tree, TreeLayout, hidden_states, share_prefixes
from rlvr_world.models.cpu import replace_linears
from rlvr_world.models.head import Model, evaluating, head_weight
from rlvr_world.models.last_layer import answers_alone

PROMPT, ANSWER = 4, 2
"""Tokens of what is tried: a prompt, and each of the two answers to it."""
TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest logit: float32 leaves up to 1e-5, a layout that is ignored more
than 1e-2."""


def prepare(model: Model, checkpointing: bool = False) -> None:
    """Make this model share prefixes (in place), with which it must give what it gave without.

    A prompt with two answers goes through a plain forward of transformers, then through the cache of sampling,
    then packed as for RL and for likelihood training: five short forwards, after which every random stream stands where
    it stood.
    ``checkpointing`` recomputes activations in the backward pass. Raises InputError that names the model where logits
    differ, where a forward draws random numbers, or where it does not run.
    """
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), evaluating(model):
        try:
            before, head_VD = _streams(device), head_weight(model)
            ids_GT = _tokens(len(head_VD)).to(device)
            plain = model(input_ids=ids_GT, use_cache=False).logits[:, PROMPT:].float()
            share_prefixes(model)
            answers_alone(model)
            replace_linears(model)
            if checkpointing:
                model.gradient_checkpointing_enable()
            for what, read in WAYS.items():
                if what != CACHES:
                    learning(model)
                logits = (read(model, ids_GT) @ head_VD.T).float()
                if not torch.equal(before, _streams(device)):
                    off = "; set model.gradient_checkpointing=false, or the dropouts in its config.json to 0"
                    raise _refused(model, f"one whose forward draws random numbers{off * checkpointing}")
                apart = float((logits - plain).abs().max() / plain.abs().max())
                if not apart <= TOLERANCE:
                    differ = f"logits that differ from plain forwards by {apart:.0e}"
                    raise _refused(model, f"{differ} where {what} sequences")
        except InputError:
            raise
        except (AttributeError, TypeError, ValueError, LookupError, RuntimeError, AssertionError) as error:
            said = (str(error).splitlines() or [""])[0]
            raise _refused(model, f"one whose forward fails ({type(error).__name__}: {said:.120})") from error


def learning(model: Model) -> None:
    """The mode in which a model is trained: that of evaluation, so that no dropout or dropped layer is drawn, but for
    layers that are computed again in the backward pass, which look at their mode."""
    model.eval()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = module.gradient_checkpointing


def window_of(model: Model) -> int | None:
    """The most tokens of a sequence: as many as there are positions, or, where rotary frequencies change with the
    longest sequence of a forward, as many as leave them alone. None where nothing bounds it."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    bounds = [rope.get("original_max_position_embeddings") for rope in changing_ropes(model)]
    return min((n for n in (positions, *bounds) if n), default=None)


def changing_ropes(model: Model) -> list[dict[str, Any]]:
    """The settings of those rotary embeddings whose frequencies change with the longest sequence of a forward."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]  # one, or one for each kind of layer
    return [kind for kind in kinds if kind.get("rope_type") in ("dynamic", "longrope")]


def check_length(model: Model, prompt: int, answer: int = 0) -> None:
    """Raises InputError where a prompt and an answer of so many tokens, whose last is never read, leave the window."""
    most = window_of(model)
    if most is not None and prompt + max(0, answer - 1) > most:
        got = f"a prompt of {prompt} with an answer of up to {answer}" if answer else f"one of {prompt}"
        wanted = f"sequences of at most {most} tokens, its positions"
        mend = "shorten prompts, lower data.max_response, or choose another model"
        raise InputError(f"model {model.config.model_type}: expected {wanted}, got {got}; {mend}")


def _tokens(vocabulary: int) -> Tensor:
    """int64 [2, PROMPT + ANSWER] from the middle of the vocabulary: special tokens lie at its ends."""
    count = PROMPT + 2 * ANSWER
    ids = (vocabulary // 4 + torch.arange(count) * max(1, vocabulary // (2 * count))) % vocabulary
    return torch.stack([ids[: PROMPT + ANSWER], torch.cat([ids[:PROMPT], ids[-ANSWER:]])])


def _packed(model: Model, ids_GT: Tensor) -> Tensor:
    """Hidden states [2, ANSWER, D] of the answers beside each other in one row."""
    at_T = torch.arange(PROMPT + ANSWER, device=ids_GT.device)
    ids_1N, at_1N = (torch.cat([first, second[PROMPT:]])[None] for first, second in (ids_GT, (at_T, at_T)))
    layout = TreeLayout((Tree(PROMPT, (ANSWER, ANSWER)),))
    return hidden_states(model, ids_1N, at_1N, layout)[0, PROMPT:].unflatten(0, (2, ANSWER))


def _answers(model: Model, ids_GT: Tensor) -> Tensor:
    """The same of plain sequences end to end, of which nothing but the answers is asked for."""
    rows, T = ids_GT.shape
    layout = TreeLayout((Tree(T, ()),) * rows, (ANSWER,) * rows)
    hidden = hidden_states(model, ids_GT.view(1, -1), torch.arange(T, device=ids_GT.device).repeat(rows)[None], layout)
    return hidden[0].unflatten(0, (rows, ANSWER))


def _cached(model: Model, ids_GT: Tensor) -> Tensor:
    """The same by way of the sampler's cache."""
    cache = GroupCache(1, 2, torch.tensor([PROMPT], device=ids_GT.device))
    at_GT = torch.arange(PROMPT + ANSWER, device=ids_GT.device).expand(2, -1)
    hidden_states(model, ids_GT[:1, :PROMPT], at_GT[:1, :PROMPT], cache)
    cache.length = 0
    cache.begin(ANSWER)
    return hidden_states(model, ids_GT[:, PROMPT:], at_GT[:, PROMPT:], cache)


CACHES = "sampling caches"
WAYS = {CACHES: _cached, "training packs": _packed, "likelihood training packs": _answers}


def _streams(device: torch.device) -> Tensor:
    """Where torch's generators stand."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return torch.cat([torch.get_rng_state(), *on_gpu])


def _refused(model: Model, got: str) -> InputError:
    name = f"{model.config.model_type} ({type(model).__name__})"
    return InputError(f"model {name}: expected one that is sampled and trained as it stands, got {got}; choose another")
