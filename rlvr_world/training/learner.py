"""A model under training: one optimizer, one way to turn packed groups into gradients.

Shape legend: N packed tokens, T tokens that carry loss, D hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.models.attention import hidden_states, share_prefixes
from rlvr_world.models.device import compute_dtype
from rlvr_world.models.head import Model, head_weight
from rlvr_world.models.loading import save_model
from rlvr_world.training.losses import chosen_logps
from rlvr_world.training.packing import Group, Packed, micro_batches, pack
from rlvr_world.training.state import load_optimizer, load_weights, save_optimizer

TokenLoss = Callable[[Tensor, Tensor, Packed], Tensor]
"""(log-prob [T], entropy [T], packed) -> loss of each token [T]."""


class Learner:
    """A float32 model under AdamW, and the policy that forwards run: the same object, or its bfloat16 copy.

    Gradients of the copy are added up in float32 after every micro-batch, and the copy follows each
    optimizer step. Sampler, trainer and evaluator all run ``policy``; checkpoints hold ``model``.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase | None,
        model_config: ModelConfig,
        optimizer_config: OptimizerConfig,
        world: Path | None = None,
    ) -> None:
        """``world``: the folder that goes with the model into every checkpoint."""
        self.model, self.tokenizer, self.config, self.world = model, tokenizer, optimizer_config, world
        self.device = next(model.parameters()).device
        share_prefixes(model)
        if model_config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        dtype = compute_dtype(model_config.precision, self.device)
        self.policy: Model = model if dtype == torch.float32 else copy.deepcopy(model)
        if self.policy is not model:
            for used in self.policy.parameters():  # not `to`: it rounds buffers too, and with them every position
                used.data = used.data.to(dtype)
        pairs = zip(model.parameters(), self.policy.parameters(), strict=True)
        self.trainable = [(master, used) for master, used in pairs if master.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [master for master, _ in self.trainable],
            lr=optimizer_config.learning_rate,
            betas=(optimizer_config.beta1, optimizer_config.beta2),
            weight_decay=optimizer_config.weight_decay,
            fused=True,
        )

    @property
    def watched(self) -> list[tuple[torch.optim.Optimizer, torch.nn.Module]]:
        """Each optimizer with what it trains."""
        return [(self.optimizer, self.model)]

    def save(self, folder: Path) -> None:
        """The model folder, and the optimizer's state in it."""
        save_model(self.model, self.tokenizer, folder, self.world)
        save_optimizer(self.optimizer, folder)

    def restore(self, checkpoint: Path) -> None:
        """Weights and optimizer state of a checkpoint of the same model."""
        load_weights(checkpoint, self.model)
        load_optimizer(self.optimizer, checkpoint)
        self.refresh()

    def refresh(self) -> None:
        """Bring the policy up to the model's weights."""
        if self.policy is not self.model:
            with torch.no_grad():
                for master, used in self.trainable:
                    used.copy_(master)

    def _collect_gradients(self) -> None:
        """Add the policy's gradients to the model's, in float32."""
        if self.policy is not self.model:
            for master, used in self.trainable:
                if used.grad is not None:
                    master.grad = used.grad.float() if master.grad is None else master.grad.add_(used.grad)
                    used.grad = None

    def logps(self, packed: Packed, temperature: float = 1.0, model: Model | None = None) -> tuple[Tensor, Tensor]:
        """Log-prob and entropy of every trained token, float32 [T], under the policy or another model like it."""
        model = model if model is not None else self.policy
        hidden_ND = hidden_states(model, packed.ids_1N, packed.positions_1N, packed.layout)[0]
        head_VD, allowed = head_weight(model), None
        if packed.legal_T2 is not None:
            start_T, stop_T = packed.legal_T2.unbind(1)
            allowed = (start_T, stop_T.clamp(max=head_VD.shape[0]))
        return chosen_logps(
            hidden_ND[packed.source_T], head_VD, packed.target_T, allowed=allowed, temperature=temperature
        )

    def update(
        self,
        groups: Sequence[Group],
        loss_of: TokenLoss,
        progress: float,
        forward_tokens: int,
        temperature: float = 1.0,
    ) -> dict[str, float]:
        """One optimizer step on the weighted sum of token losses; micro-batching cannot change it."""
        self.policy.train()
        total = 0.0
        for batch in micro_batches(groups, forward_tokens):
            packed = pack(batch).to(self.device)
            logp_T, entropy_T = self.logps(packed, temperature)
            loss = (packed.weight_T * loss_of(logp_T, entropy_T, packed)).sum()
            loss.backward()
            self._collect_gradients()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_([master for master, _ in self.trainable], self.config.clip_norm)
        for settings in self.optimizer.param_groups:
            settings["lr"] = learning_rate(self.config, progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.refresh()
        return {"loss": total, "grad_norm": norm.item(), "learning_rate": learning_rate(self.config, progress)}


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate at a fraction ``progress`` in [0, 1] of the stage."""
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    after = (progress - config.warmup) / max(1e-9, 1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))
