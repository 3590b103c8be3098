"""Visual tokenizers from disk or the hub, whole or not at all, and the fingerprint that names one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file

from rlvr_world.errors import InputError
from rlvr_world.system.files import read_object
from rlvr_world.vision.blocks import VisualTokenizer
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.frame_tokenizer import FrameTokenizer

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KINDS: dict[str, type[VisualTokenizer]] = {kind.published_name: kind for kind in (FrameTokenizer, CompressiveTokenizer)}


def load_visual_tokenizer(source: str | Path) -> VisualTokenizer:
    """The visual tokenizer in a local folder or on the Hugging Face hub: float32, frozen, in evaluation mode.

    Reads the published folders (``thuml/rt1-frame-tokenizer``, ``thuml/rt1-compressive-tokenizer``) and those that
    ``save_pretrained`` writes. Raises InputError for a folder or file that is missing or torn, a config that none can
    be built from, or weights that are not exactly those the config asks for (it names the first).
    """
    config = read_object(Path(_file(source, CONFIG)), mend="copy it again")
    name = config.get("_class_name")
    kind = KINDS.get(name or "")
    if kind is None:
        wanted = f"_class_name in {CONFIG} to be one of {sorted(KINDS)}"
        raise InputError(f"tokenizer {source}: expected {wanted}, got {name!r}; this is the folder of something else")
    try:
        tokenizer = kind(**{name: value for name, value in config.items() if not name.startswith("_")})
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"tokenizer {source}: no {kind.__name__} can be built from {CONFIG}: {error}") from error
    try:
        weights = load_file(_file(source, WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise InputError(f"tokenizer {source}: {WEIGHTS} cannot be read ({error}); copy it again") from error
    try:
        tokenizer.load_state_dict(weights)
    except RuntimeError as error:
        wrong = str(error).splitlines()[1].strip()
        said = f"tokenizer {source}: {WEIGHTS} is not that of {CONFIG}: {wrong:.200}; copy both again"
        raise InputError(said) from error
    return tokenizer.requires_grad_(False).eval()


def fingerprint(tokenizer: VisualTokenizer) -> str:
    """12 hexadecimal digits that change whenever a weight, its type, or a config field does (SHA-256)."""
    config = json.loads(tokenizer.to_json_string())
    del config["_diffusers_version"]  # says who wrote the folder, not what is in it
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def _file(source: str | Path, name: str) -> str:
    """The path of one file of a tokenizer, fetched from the hub where ``source`` is not a local path."""
    local = Path(source).expanduser()
    if local.is_dir():
        if not (local / name).is_file():
            raise InputError(f"tokenizer {source}: the folder has no {name}; it is incomplete or not a tokenizer")
        return str(local / name)
    if isinstance(source, Path) or source.startswith((".", "/", "~")) or source.count("/") != 1 or local.exists():
        raise InputError(f"tokenizer {source}: there is no such folder; check the path")
    try:
        return hf_hub_download(source, name)
    except (OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        got = f"there is no such folder, and the Hugging Face hub gave no {name} ({why})"
        raise InputError(f"tokenizer {source}: {got}; check the name and the connection") from error
