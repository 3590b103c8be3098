"""Every architecture of transformers' causal language models, tiny and with random weights: does what is sampled and
trained here agree with plain transformers, or is the model refused in a sentence?

    python tests/models/architectures.py [NAME ...]      # the table; exit code 1 where one is silently wrong
"""

from __future__ import annotations

import copy
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.errors import InputError
from rlvr_world.models.loading import CODEC, load_model
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import Branch, Group, pack
from rlvr_world.types import Given, Script, Write

SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size",), 96),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "dff"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads",), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    "head_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    "rotary_dim": 4,
    "initializer_range": 0.1,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
}
"""Sizes under the names that configs have for them."""
LATENT = {"v_head_dim": 16, "partial_rotary_factor": 1.0}  # as wide as a query: 8 with and 8 without a position
OTHERS: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "deepseek_v2": {"v_head_dim": 8},
    **dict.fromkeys(("deepseek_v3", "youtu", "glm4_moe_lite", "longcat_flash", "axk1"), LATENT),
    "reformer": {"is_decoder": True},
}
LARGEST = 5_000_000


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture."""

    name: str
    said: str = ""
    """Why it is refused; "" where it is not."""
    trained: float = 0.0
    """Largest difference of a log-probability in a packed forward, in nats."""
    gradient: float = 0.0
    """The same of the gradient of their sum, relative to its largest entry."""
    sampled: float = 0.0
    """Largest difference of a sampled token's log-probability, in nats."""

    @property
    def wrong(self) -> bool:
        return not self.said and not max(self.trained, self.gradient, self.sampled) <= 1e-5


def names() -> list[str]:
    """The model types, but those whose class another type has named already."""
    by_class: dict[Any, str] = {}
    for name, found in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        by_class.setdefault(found, name)
    return list(by_class.values())


def tiny(name: str) -> Any:
    """A model of this type with random weights, and a codec in its config instead of a text tokenizer."""
    config = shrunk(CONFIG_MAPPING[name](), **OTHERS.get(name, {}))
    with torch.device("meta"):
        count = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    if count > LARGEST:
        raise ValueError(f"{count / 1e6:.0f}M parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    setattr(model.config, CODEC, {})
    with torch.no_grad():
        model(input_ids=torch.arange(12)[None] + 9, use_cache=False)
    return model


def shrunk(default: PretrainedConfig, **others: Any) -> PretrainedConfig:
    """A config of the same kind with small sizes, and so are the configs in it."""
    kind = type(default)
    inside = {
        key: shrunk(value).to_dict() for key, value in vars(default).items() if isinstance(value, PretrainedConfig)
    }
    sizes = {key for key in SMALL if not isinstance(getattr(kind, key, None), property) and hasattr(default, key)}
    return kind(**{**{key: SMALL[key] for key in sizes}, **inside, **others})


def outcome(name: str, model: Any) -> Outcome:
    """Saved, loaded as a run loads it, then held against the model itself."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        try:
            loaded, _ = load_model(folder)
            learner = Learner(loaded, None, ModelConfig(precision="float32", device="cpu"), OptimizerConfig())
        except InputError as error:
            return Outcome(name, str(error).replace(folder, "FOLDER"))
    groups = [_group((3, 40, 41, 42, 9, 77), 5, 3), _group((50, 8, 60), 4, 7)]
    packed = pack(groups)
    got = learner.logps(packed)[0]
    wanted = _plain(model, [(g.prompt, b.ids) for g in groups for b in g.branches])
    (got * torch.linspace(-1, 1, len(got))).sum().backward()
    (wanted * torch.linspace(-1, 1, len(got))).sum().backward()
    pairs = [(a.grad, b.grad) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)]
    both = [(a if a is not None else torch.zeros_like(b), b) for a, b in pairs if b is not None]
    gradient = max(float((a - b).abs().max()) for a, b in both) / max(float(b.abs().max()) for _, b in both)
    got, wanted = got.detach(), wanted.detach()
    scripts = [Script((Given(group.prompt), Write(6))) for group in groups]
    rollouts = [r for g in sample(loaded, scripts, 3, Sampling(), [(0, 0), (0, 1)]) for r in g]
    with torch.no_grad():
        again = _plain(model, [(r.script.prompt, r.ids) for r in rollouts])
    drawn = torch.cat([r.logps for r in rollouts])
    return Outcome(name, "", float((got - wanted).abs().max()), gradient, float((drawn - again).abs().max()))


def _group(prompt: tuple[int, ...], *lengths: int) -> Group:
    every = [torch.arange(length) * 7 % 80 + 10 + length for length in lengths]
    return Group(prompt, tuple(Branch(ids, torch.ones(len(ids), dtype=torch.bool), 1.0) for ids in every))


def _plain(model: Any, pairs: Sequence[tuple[tuple[int, ...], torch.Tensor]]) -> torch.Tensor:
    """Log-probabilities of each answer after its prompt, one plain forward each."""
    found = []
    for prompt, answer in pairs:
        ids = torch.cat([torch.tensor(prompt), answer])
        logps = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0].float(), -1)
        found.append(logps[len(prompt) - 1 : -1].gather(1, answer[:, None])[:, 0])
    return torch.cat(found)


def main(chosen: Sequence[str]) -> int:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    started, found, unmade = time.perf_counter(), [], []
    print("| architecture | trained | gradient | sampled | refused |\n|---|--:|--:|--:|---|")
    for name in chosen or names():
        quiet = io.StringIO()
        try:
            with redirect_stderr(quiet), redirect_stdout(quiet):
                model = tiny(name)
        except Exception as error:  # noqa: BLE001 - a config that small sizes do not fit
            unmade.append(f"{name} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})")
            continue
        with redirect_stderr(quiet), redirect_stdout(quiet):
            one = outcome(name, model)
        found.append(one)
        numbers = "| | |" if one.said else f"{one.trained:.0e} | {one.gradient:.0e} | {one.sampled:.0e} |"
        print(f"| {'**WRONG** ' * one.wrong}{name} | {numbers} {one.said} |", flush=True)
    exact = sum(not one.said and not one.wrong for one in found)
    wrong, refused = [one.name for one in found if one.wrong], sum(bool(one.said) for one in found)
    print(
        f"\n{len(found)} architectures: {exact} exact to 1e-5, {refused} refused, {len(wrong)} silently wrong", end=" "
    )
    print(f"{' '.join(wrong)}\n{len(unmade)} without a tiny config: {', '.join(unmade)}")
    print(f"{time.perf_counter() - started:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
