"""A model under training: one optimizer, one way to turn packed groups into gradients.

Shape legend: N packed tokens, T tokens that carry loss, D hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor

from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.models.attention import hidden_states
from rlvr_world.models.contract import check_length, learning, prepare
from rlvr_world.models.device import check_device, compute_dtype
from rlvr_world.models.head import Model, head_weight
from rlvr_world.models.loading import load_weights, save_model
from rlvr_world.models.shards import collected, filled, full, hollow, inside, shard
from rlvr_world.models.text_tokenizer import TextTokenizer
from rlvr_world.system import ranks
from rlvr_world.training.losses import chosen_logps
from rlvr_world.training.optimizer import TRAINER, Watched, load_optimizer, optimizer_of, save_optimizer, take_step
from rlvr_world.training.packing import Group, Packed, micro_batches, nothing, pack

TokenLoss = Callable[[Tensor, Tensor, Packed], Tensor]
"""(log-prob [T], entropy [T], packed) -> loss of each token [T]."""
SPREAD = "spread.json"


def shares(model: ModelConfig, optimizer: OptimizerConfig | None) -> bool:
    """Whether ranks share out the weights of a model: of one that is trained, where its settings say so."""
    return model.shard and optimizer is not None and ranks.size() > 1


class Learner:
    """A float32 model under its optimizer, and the policy that forwards run: the same object, or its bfloat16 copy.

    Gradients of the copy are added up in float32 after every micro-batch, and the copy follows each
    optimizer step. Sampler, trainer and evaluator all run ``policy``; checkpoints hold ``model``.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: TextTokenizer | None,
        model_config: ModelConfig,
        optimizer_config: OptimizerConfig | None,
        world: Path | None = None,
    ) -> None:
        """``optimizer_config``: None where the model is only used, which takes no float32 weights. ``world``: the
        folder that goes with the model into every checkpoint."""
        self.model, self.tokenizer, self.world = model, tokenizer, world
        self.config = optimizer_config or OptimizerConfig()
        self.sharded = shares(model_config, optimizer_config)
        self.device = check_device(model_config.device) if self.sharded else next(model.parameters()).device
        prepare(model, model_config.gradient_checkpointing)
        self.dtype = dtype = compute_dtype(model_config.precision, self.device)
        self.policy: Model = model
        if self.sharded:
            self.shell = hollow(model)  # before its layers are those of FSDP
            shard(model, self.device, dtype)
        elif dtype != torch.float32:  # parameters alone: rounded buffers would round every position
            rounded = {id(p): torch.nn.Parameter(p.detach().to(dtype), p.requires_grad) for p in model.parameters()}
            self.policy = copy.deepcopy(model, rounded)  # takes these for its own, and copies no float32
            if optimizer_config is None:
                self.model = model = self.policy
        pairs = list(zip(model.parameters(), self.policy.parameters(), strict=True))
        self.trainable = [(master, used) for master, used in pairs if master.requires_grad]
        for master, used in pairs if self.device.type == "cuda" else ():
            if master is not used and not master.requires_grad:
                master.data = master.data.cpu()  # of LoRA's frozen weights the GPU has the copy alone
        self.optimizer = optimizer_of(model, [master for master, _ in self.trainable], self.config)
        self.watched: Watched = [(self.optimizer, model)]
        self.spread: dict[str, float] = {}
        """By row, the deviation of the rewards of its last group, where RL draws rows by it."""

    def save(self, folder: Path) -> None:
        """The model folder, and in it what training goes on from."""
        if (model := self._whole(self.model)) is not None:
            save_model(model, self.tokenizer, folder, self.world)
        save_optimizer(self.optimizer, folder)
        if self.spread and model is not None:
            (folder / TRAINER / SPREAD).write_text(json.dumps(self.spread))

    def publish(self, folder: Path) -> None:
        """The policy in a folder for others to read, with LoRA its adapter alone; the first rank writes."""
        policy = self._whole(self.policy, "lora_" if isinstance(self.policy, PeftModel) else "")
        if policy is not None and ranks.first():
            policy.save_pretrained(str(folder), save_embedding_layers=False)

    def _whole(self, model: Model, part: str = "") -> Model | None:
        """The model; of one that is shared out a copy on the first rank's CPU, of weights so named at least."""
        if not self.sharded:
            return model
        weights = collected((name, tensor) for name, tensor in model.state_dict().items() if part in name)
        return None if weights is None else filled(self.shell, weights)

    def frozen(self) -> Model:
        """A copy of the policy as it is, not to be trained."""
        if not self.sharded:
            return copy.deepcopy(self.policy).eval().requires_grad_(False)
        other = filled(self.shell, {name: full(tensor).cpu() for name, tensor in self.model.state_dict().items()})
        return shard(other.eval().requires_grad_(False), self.device, self.dtype)

    def restore(self, checkpoint: Path) -> None:
        """Weights and optimizer state of a checkpoint of the same model."""
        load_weights(self.model, checkpoint)
        load_optimizer(self.optimizer, checkpoint)
        seen = checkpoint / TRAINER / SPREAD
        self.spread = json.loads(seen.read_text()) if seen.is_file() else {}
        self.refresh()

    def refresh(self) -> None:
        """Bring the policy up to the model's weights."""
        if self.policy is not self.model:
            with torch.no_grad():
                for master, used in self.trainable:
                    used.copy_(master)

    def _collect_gradients(self) -> None:
        """Add the policy's gradients to the model's, in float32."""
        for master, used in self.trainable if self.policy is not self.model else ():
            if used.grad is not None:
                master.grad = used.grad.float() if master.grad is None else master.grad.add_(used.grad)
                used.grad = None

    def logps(self, packed: Packed, temperature: float = 1.0, model: Model | None = None) -> tuple[Tensor, Tensor]:
        """Log-prob and entropy of every trained token, float32 [T], under the policy or another model like it."""
        used = model if model is not None else self.policy
        check_length(used, packed.layout.longest(0))
        return inside(used, lambda: self._logps(used, packed, temperature))

    @staticmethod
    def _logps(model: Model, packed: Packed, temperature: float) -> tuple[Tensor, Tensor]:
        hidden_ND = hidden_states(model, packed.ids_1N, packed.positions_1N, packed.layout)[0]
        head_VD, allowed = head_weight(model), None
        if packed.legal_T2 is not None:
            start_T, stop_T = packed.legal_T2.unbind(1)
            allowed = (start_T, stop_T.clamp(max=head_VD.shape[0]))
        return chosen_logps(hidden_ND[packed.source_T], head_VD, packed.target_T, allowed, temperature)

    def update(
        self, groups: list[Group], loss_of: TokenLoss, progress: float, forward_tokens: int, temperature: float = 1.0
    ) -> dict[str, float]:
        """One optimizer step on the weighted sum of token losses; neither micro-batching nor ranks can change it."""
        learning(self.policy)
        total = 0.0
        own = ranks.mine(sorted(groups, key=lambda group: group.tokens))  # as much for each rank
        batches = list(micro_batches(own, forward_tokens))
        if self.sharded:  # all ranks gather and add up together: as many backwards for each
            most = max(ranks.everyone(len(batches)))
            batches += [[nothing(groups[0])]] * (most - len(batches))
        for batch in batches:
            packed = pack(batch).to(self.device)
            logp_T, entropy_T = self.logps(packed, temperature)
            loss = (packed.weight_T * loss_of(logp_T, entropy_T, packed)).sum()
            loss.backward()
            self._collect_gradients()
            total += loss.item()
        taken = take_step(self.optimizer, self.config, progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.refresh()
        return {**ranks.added({"loss": total}), **taken}
