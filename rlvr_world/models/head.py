"""What is trained here, and its head: logits are hidden states times the head's weights, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from rlvr_world.errors import InputError

Model = PreTrainedModel | PeftModel
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What some models do to logits after the head."""


def head_weight(model: Model) -> Tensor:
    """The head's weights [V, D]: logits are hidden @ weight.T. Raises InputError for a model that adds a bias to its
    logits, scales or caps them, or adapts the head."""
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"model {type(model).__name__}: it has no language-model head; use a causal language model")
    if isinstance(head, LoraLayer):
        raise InputError("lora target: the head cannot be adapted; leave it out of the target")
    changed = [name for name in LOGIT_SETTINGS if getattr(model.config, name, None) not in (None, 1.0)]
    if getattr(head, "bias", None) is not None:
        changed.append("a bias of the head")
    if changed:
        raise InputError(f"model {model.config.model_type}: {changed[0]} changes its logits; choose another model")
    return head.weight


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
