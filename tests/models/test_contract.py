"""What is asked of a model at load: it computes the same packed and cached, draws nothing, keeps to its positions."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    StableLmConfig,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)

from rlvr_world import cli
from rlvr_world.config import ModelConfig, OptimizerConfig
from rlvr_world.errors import InputError
from rlvr_world.models.contract import learning, prepare, window_of
from rlvr_world.models.loading import load_model, save_model
from rlvr_world.models.text_tokenizer import answer_script, ends, train_text_tokenizer
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import Branch, Group
from rlvr_world.types import Given, Script, Write

_spec = importlib.util.spec_from_file_location("architectures", Path(__file__).parent / "architectures.py")
assert _spec is not None
assert _spec.loader is not None
table = sys.modules["architectures"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

EXACT = {"llama", "qwen2", "qwen3", "mistral", "gemma3_text", "phi3", "smollm3", "gpt2", "opt", "olmo2", "deepseek_v3"}
REFUSED = {
    "stablelm": "logits that differ from plain forwards by ",
    "nemotron": "logits that differ from plain forwards by ",
    "diffllama": "logits that differ from plain forwards by ",
    "doge": "a mask of its own",
    "bert": "a bias of the head",
    "mamba": "linear_attention",
    "gpt_oss": "sinks",
    "cohere": "logit_scale",
}
TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
}


def model_of(kind: type[PretrainedConfig] = LlamaConfig, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(kind(**{**TINY, **settings})).float()


def learner_of(model: Any, **settings: Any) -> Learner:
    return Learner(model, None, ModelConfig(precision="float32", device="cpu", **settings), OptimizerConfig(1e-2))


def groups() -> list[Group]:
    return [Group((3, 4, 5), (Branch(torch.arange(10, 20), torch.ones(10, dtype=torch.bool), 1.0),))]


@pytest.mark.parametrize("name", table.names())
def test_an_architecture_is_exact_or_refused(name: str) -> None:
    try:
        model = table.tiny(name)
    except Exception as error:
        if name in EXACT | REFUSED.keys():
            raise
        pytest.skip(f"small sizes do not fit it ({type(error).__name__})")
    one = table.outcome(name, model)
    assert not one.wrong, one
    assert not (name in EXACT and one.said), one.said
    if name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name]):
            raise InputError(one.said)


DROPPING = [(GPT2Config, {"n_positions": 32}), (OPTConfig, {"ffn_dim": 48, "layerdrop": 0.5, "dropout": 0.5})]


@pytest.mark.parametrize(("kind", "settings"), DROPPING)
def test_nothing_is_drawn_where_a_model_has_dropout(kind: type[PretrainedConfig], settings: dict[str, Any]) -> None:
    weights = []
    for seed in (1, 2):  # a run that was resumed stands elsewhere in torch's stream
        learner = learner_of(model_of(kind, **settings))
        torch.manual_seed(seed)
        stands = torch.get_rng_state()
        learner.update(groups(), lambda logp, entropy, packed: -logp, 0.0, 64)
        assert torch.equal(torch.get_rng_state(), stands)
        weights.append(torch.cat([p.detach().flatten() for p in learner.model.parameters()]))
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], torch.cat([p.flatten() for p in model_of(kind, **settings).parameters()]))


def test_dropout_of_layers_that_are_computed_again_is_refused() -> None:
    with pytest.raises(InputError, match=r"opt .* draws random numbers; set model\.gradient_checkpointing=false"):
        learner_of(model_of(OPTConfig, ffn_dim=48), gradient_checkpointing=True)


def test_layers_are_computed_again_in_the_mode_of_evaluation() -> None:
    counts = []
    for again in (False, True):
        learner = learner_of(model_of(), gradient_checkpointing=again)
        seen: list[bool] = []
        learner.model.model.layers[0].mlp.register_forward_pre_hook(lambda m, i, seen=seen: seen.append(m.training))
        learner.update(groups(), lambda logp, entropy, packed: -logp, 0.0, 64)
        counts.append(seen)
    assert counts == [[False], [False, False]]


def test_a_model_that_draws_is_refused_and_no_stream_moves() -> None:
    stands = torch.get_rng_state()
    model = model_of()
    torch.set_rng_state(stands)
    prepare(model)
    assert torch.equal(torch.get_rng_state(), stands)
    noisy = model_of()
    torch.set_rng_state(stands)
    noisy.model.norm.register_forward_hook(lambda module, given, out: out + 0 * torch.rand(1))
    with pytest.raises(InputError, match=r"llama \(LlamaForCausalLM\): .* draws random numbers; choose another"):
        prepare(noisy)
    assert torch.equal(torch.get_rng_state(), stands)


@pytest.mark.parametrize("verb", ["check", "train"])
def test_no_stage_begins_with_a_model_that_ignores_the_layout(
    verb: str, house: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = model_of(StableLmConfig, vocab_size=300, intermediate_size=48), house(30)
    save_model(model, train_text_tokenizer(["{} a"] * 9, vocab_size=280), tmp_path / "model")
    settings = [f"model.source={tmp_path / 'model'}", f"data.train={rows}", f"data.test={rows}", "model.device=cpu"]
    out = ["--out", str(tmp_path / "run")] if verb == "train" else []
    assert cli.main([verb, "bytesized32", *out, *settings]) == 2
    assert "model stablelm (StableLmForCausalLM): expected one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_forward_that_fails_is_a_sentence() -> None:
    model = model_of()
    model.model.norm.register_forward_hook(lambda module, given, out: out[:, :, :3])
    with pytest.raises(InputError, match=r"llama .* forward fails .RuntimeError: "):
        prepare(model)


def test_the_mode_of_a_model_stays() -> None:
    model = model_of().train()
    prepare(model)
    assert model.training
    learning(model)
    assert not any(module.training for module in model.modules())


def test_positions_bound_what_is_sampled_and_trained() -> None:
    learner = learner_of(model_of(max_position_embeddings=16))
    prompt = tuple(range(3, 13))
    [[rollout]] = sample(learner.model, [Script((Given(prompt), Write(7)))], 1, Sampling(), [(0,)])
    assert len(rollout.ids) == 7  # the last one is not read: 16 in all
    said = "llama: expected sequences of at most 16 tokens, its positions, got a prompt of 10 with an answer of up to 8"
    with pytest.raises(InputError, match=said):
        sample(
            learner.model,
            [Script((Given((3,)), Write(2))), Script((Given(prompt), Write(8)))],
            1,
            Sampling(),
            [(0,)] * 2,
        )
    ids = torch.arange(8)
    for count, good in ((7, True), (8, False)):
        group = Group(prompt, (Branch(ids[:count], torch.ones(count, dtype=torch.bool), 1.0),) * 2)
        if good:
            learner.update([group], lambda logp, entropy, packed: -logp, 0.0, 64)
            continue
        with pytest.raises(InputError, match="at most 16 tokens, its positions, got one of 17"):
            learner.update([group], lambda logp, entropy, packed: -logp, 0.0, 64)


def test_frequencies_that_change_with_the_longest_sequence_bound_it_too() -> None:
    halves = [1.0] * 4
    long = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": halves, "long_factor": halves}
    long |= {"original_max_position_embeddings": 12, "factor": 2.0}
    assert window_of(model_of(rope_parameters=long, max_position_embeddings=64)) == 12
    assert window_of(model_of(max_position_embeddings=64)) == 64
    assert window_of(model_of(GPT2Config, n_positions=32)) == 32


def test_all_ends_of_the_generation_config_stop(tmp_path: Path) -> None:
    tokenizer = train_text_tokenizer(["a"], vocab_size=259)
    model = model_of(vocab_size=264)
    model.generation_config = GenerationConfig(eos_token_id=[7, tokenizer.eos_token_id, 9])
    save_model(model, tokenizer, tmp_path / "one")
    for place in ("one", "two"):  # a checkpoint of it knows them too
        loaded, own = load_model(str(tmp_path / place))
        assert own is not None
        assert ends(own) == (own.eos_token_id, 7, 9)
        script = answer_script(own, (5, 6), "b", 4)
        assert script.tail[0].stop == (own.eos_token_id, 7, 9)
        assert script.tail[0].target[-1] == own.eos_token_id
        save_model(loaded, own, tmp_path / "two")
    assert ends(tokenizer) == (tokenizer.eos_token_id,)


def test_folders_that_cannot_be_trained_are_refused_in_a_sentence(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"d_model": 16, "vocab_size": 96, "encoder_layers": 1, "decoder_layers": 1}
    BartForConditionalGeneration(BartConfig(**sizes)).save_pretrained(tmp_path / "bart")
    T5ForConditionalGeneration(T5Config(vocab_size=96, d_model=16, d_ff=16, num_layers=1)).save_pretrained(
        tmp_path / "t5"
    )
    ViTConfig().save_pretrained(tmp_path / "vit")
    save_model(model_of(vocab_size=264), train_text_tokenizer(["a"], vocab_size=259), tmp_path / "gptq")
    config = json.loads((tmp_path / "gptq/config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "gptq/config.json").write_text(json.dumps(config))
    kinds = {
        "bart": "an encoder-decoder",
        "t5": "an encoder-decoder",
        "vit": "the type vit",
        "gptq": "quantised weights",
    }
    for name, kind in kinds.items():
        said = rf"model .*{name}: expected a causal language model .* got .*{kind}; choose another one"
        with pytest.raises(InputError, match=said):
            load_model(str(tmp_path / name))
