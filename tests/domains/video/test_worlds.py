"""The embedded worlds: the same spec gives the same arrays, frames move, actions keep the published convention."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rlvr_world.domains.video.worlds import PushTSpec, collect
from rlvr_world.errors import InputError

needs_pusht = pytest.mark.skipif(find_spec("gym_pusht") is None, reason="gym-pusht is not installed (extra: pusht)")


def _arrays(folder: Path) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(file)) for file in sorted(folder.glob("*.npz"))]


@needs_pusht
def test_the_same_spec_gives_the_same_arrays_with_any_number_of_workers(tmp_path: Path) -> None:
    spec = PushTSpec(episodes=2, length=12, size=32, seed=3)
    one, two = (_arrays(collect("pusht", spec, tmp_path / str(n), n, progress=False)) for n in (1, 2))
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys() == {"image", "action", "proprio", "block"}
        assert all(a[key].tobytes() == b[key].tobytes() for key in a)
    assert one[0]["image"].tobytes() != one[1]["image"].tobytes()


@needs_pusht
def test_a_broken_off_collection_goes_on_and_whole_episodes_are_kept(tmp_path: Path) -> None:
    spec = PushTSpec(episodes=2, length=4, size=16)
    folder = collect("pusht", spec, tmp_path, 1, progress=False)
    first, second = sorted(folder.glob("*.npz"))
    assert [first.name, second.name] == ["pusht_eps_00000000.npz", "pusht_eps_00000001.npz"]
    whole, kept = second.read_bytes(), first.stat().st_mtime_ns
    second.write_bytes(whole[:100])
    assert collect("pusht", spec, tmp_path, 1, progress=False) == folder
    assert zipfile.is_zipfile(second)
    assert first.stat().st_mtime_ns == kept
    assert sorted(p.name for p in folder.iterdir()) == [first.name, second.name, "spec.json"]


@needs_pusht
def test_pusht_moves_the_t_and_replays_from_its_actions() -> None:
    from gym_pusht.envs.pusht import PushTEnv

    from rlvr_world.domains.video.worlds import pusht

    episode = pusht.play(PushTSpec(length=60, size=32, seed=1), 0)
    assert episode["image"].shape == (60, 32, 32, 3)
    assert episode["image"].dtype == np.uint8
    assert episode["action"].dtype == episode["proprio"].dtype == np.float32
    assert np.abs(np.diff(episode["block"], axis=0)).max(1).astype(bool).mean() > 0.2
    env = PushTEnv(obs_type="state")
    env.reset(seed=int(np.random.default_rng((1, 0)).integers(2**31)))
    for t in range(59):
        here = np.array(env.agent.position)
        np.testing.assert_allclose(here, episode["proprio"][t, :2], atol=1e-3)
        env.step(here + 100.0 * episode["action"][t].astype(np.float64))
    np.testing.assert_allclose(np.array(env.block.position), episode["block"][59, :2], atol=1e-3)


def test_a_wrong_spec_is_one_sentence() -> None:
    with pytest.raises(InputError, match="episodes is 0; expected"):
        PushTSpec(episodes=0)
