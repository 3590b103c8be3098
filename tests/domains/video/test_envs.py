"""The embedded worlds: the same spec gives the same arrays, frames move, actions keep the published convention."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from contextlib import closing
from importlib import metadata
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rlvr_world.domains.video.envs import collect as collecting
from rlvr_world.domains.video.envs import table
from rlvr_world.domains.video.envs.collect import collect, opened, play, read_labelled
from rlvr_world.domains.video.envs.specs import DrawerSpec, GranularSpec, PushTSpec, RopeSpec, Spec
from rlvr_world.errors import InputError


def _needs(module: str, extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed (extra: {extra})")


needs_pusht = _needs("gym_pusht", "pusht")
needs_mujoco = _needs("mujoco", "mujoco")
TINY = [
    pytest.param("pusht", PushTSpec(episodes=2, length=12, size=32, seed=3), "proprio block", marks=needs_pusht),
    pytest.param(
        "pusht",
        PushTSpec(episodes=2, length=12, size=16, aim="home"),
        "proprio block measure success expert demo",
        marks=needs_pusht,
    ),
    pytest.param("rope", RopeSpec(episodes=2, pushes=2, size=16, links=8), "places", marks=needs_mujoco),
    pytest.param("granular", GranularSpec(episodes=2, pushes=2, size=16, grains=8), "places", marks=needs_mujoco),
    pytest.param(
        "drawer",
        DrawerSpec(episodes=2, length=3, size=16),
        "proprio measure success expert demo",
        marks=_needs("metaworld", "metaworld"),
    ),
]


def _arrays(folder: Path) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(file)) for file in sorted(folder.glob("*.npz"))]


@pytest.mark.parametrize(("kind", "spec", "more"), TINY)
def test_the_same_spec_gives_the_same_arrays_in_any_process_and_order(
    kind: str, spec: Spec, more: str, tmp_path: Path
) -> None:
    two = _arrays(collect(kind, spec, tmp_path, 2))
    one = [play(spec, episode) for episode in (1, 0)][::-1]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys() == {"image", "action", *more.split()}
        assert all(a[key].tobytes() == b[key].tobytes() for key in a)
        assert {len(array) for array in a.values()} == {len(a["image"])}
        assert a["image"].shape[1:] == (spec.size, spec.size, 3)
        assert (a["image"].dtype, a["action"].dtype) == (np.uint8, np.float32)
    assert one[0]["image"].tobytes() != one[1]["image"].tobytes()


@needs_pusht
def test_a_broken_off_collection_goes_on_and_whole_episodes_are_kept(tmp_path: Path) -> None:
    spec = PushTSpec(episodes=2, length=4, size=16)
    folder = collect("pusht", spec, tmp_path, 1)
    first, second = sorted(folder.glob("*.npz"))
    assert [first.name, second.name] == ["pusht_eps_00000000.npz", "pusht_eps_00000001.npz"]
    whole, kept = second.read_bytes(), first.stat().st_mtime_ns
    second.write_bytes(whole[:100])
    assert collect("pusht", spec, tmp_path, 1) == folder
    assert zipfile.is_zipfile(second)
    assert first.stat().st_mtime_ns == kept
    assert sorted(p.name for p in folder.iterdir()) == [first.name, second.name, "spec.json"]


@needs_pusht
def test_pusht_moves_the_t_and_replays_from_its_actions() -> None:
    from gym_pusht.envs.pusht import PushTEnv

    episode = play(PushTSpec(length=60, size=32, seed=1), 0)
    assert np.abs(np.diff(episode["block"], axis=0)).max(1).astype(bool).mean() > 0.2
    env = PushTEnv(obs_type="state")
    env.reset(seed=int(np.random.default_rng((1, 0)).integers(2**31)))
    for t in range(59):
        here = np.array(env.agent.position)
        np.testing.assert_allclose(here, episode["proprio"][t, :2], atol=1e-3)
        env.step(here + 100.0 * episode["action"][t].astype(np.float64))
    np.testing.assert_allclose(np.array(env.block.position), episode["block"][59, :2], atol=1e-3)


@needs_pusht
def test_a_hand_brings_the_t_home_and_others_do_not() -> None:
    from rlvr_world.domains.video.envs.pusht import ENOUGH

    spec, ends = PushTSpec(length=120, size=8, aim="home", noise=0.0), dict[bool, list[float]]()
    for episode in range(8):
        with closing(opened(spec, episode)) as table:
            assert table.coverage < ENOUGH
            for action in islice(table.hand, spec.length):
                table.act(action)
            assert table.won == (table.coverage >= ENOUGH)
            ends.setdefault(table.told()["demo"], []).append(table.coverage)
    assert np.mean(ends[True]) > 0.75
    assert np.mean(ends[False]) < 0.5


@needs_pusht
def test_what_is_labelled_is_what_an_expert_does_until_the_next_frame_of_a_model(tmp_path: Path) -> None:
    spec = PushTSpec(episodes=6, length=13, size=8, aim="home", noise=0.0)
    files = sorted(collect("pusht", spec, tmp_path, 1).glob("*.npz"))
    frames, measure, success, expert, demo = read_labelled(files, 4, 2)
    assert frames.shape == (18, 8, 8, 3)
    assert expert.shape == (18, 4)
    assert (success == (measure >= 0.7)).all()
    arrays = [dict(np.load(file)) for file in files]
    first = next(n for n, one in enumerate(arrays) if one["demo"].all())
    assert demo.reshape(6, 3).tolist() == [
        [sum(one["demo"].all() for one in arrays[:n]) if arrays[n]["demo"].all() else -1] * 3 for n in range(6)
    ]
    meant = arrays[first]["expert"]
    np.testing.assert_allclose(expert[3 * first + 1], [*meant[4:6].mean(0), *meant[6:8].mean(0)], atol=1e-6)
    assert 0 < np.abs(meant - arrays[first]["action"]).max() < 1  # what is done slips


@needs_mujoco
def test_the_rope_is_where_the_picture_shows_it_and_a_push_carries_it_along() -> None:
    from rlvr_world.domains.video.envs import rope

    episode = play(RopeSpec(pushes=2, size=32, links=10), 1)
    for image, places in zip(episode["image"], episode["places"], strict=True):
        columns, rows = ((places * (1, -1) + rope._HALF) / (2 * rope._HALF) * 32).astype(int).T
        inside = image[rows, columns].astype(int)
        assert (inside[:, 0] > inside[:, 2] + 20).all()  # red rope on a bluish table
    moved = np.linalg.norm(np.diff(episode["places"], axis=0), axis=-1).max(1)
    assert (moved > 0.01).all()


@needs_mujoco
def test_a_grain_in_the_way_is_pushed_to_the_end_and_the_board_leaves_the_picture() -> None:
    from rlvr_world.domains.video.envs import granular

    spec = GranularSpec(grains=1, size=32)
    rng = np.random.default_rng(0)
    scene = table.Table(granular._xml(spec, rng), spec.size, granular.PUSHER, granular.REACH, rng)
    scene.rest()
    before = scene.places()[0]
    heading = -before / np.linalg.norm(before)
    scene.push(before - 0.05 * heading, before + 0.1 * heading)
    after = scene.places()[0]
    image = scene.picture().astype(int)
    scene.close()
    assert 0.1 < (after - before) @ heading < 0.25
    assert abs(np.array([-heading[1], heading[0]]) @ (after - before)) < 0.05
    assert (image[..., 0] > image[..., 2] + 20).sum() < 12  # nothing but the grain on the table


@needs_mujoco
def test_a_simulation_that_blows_up_is_told_with_its_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(scene: table.Table, *_: object) -> None:
        scene.data.qvel[:] = 1e12
        scene.rest()

    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log here
    monkeypatch.setattr(table.Table, "push", explode)
    with pytest.raises(InputError, match=r"GranularSpec, episode 3, seed 5: the simulation became unstable 4 times"):
        play(GranularSpec(pushes=1, size=8, grains=2, seed=5), 3)


@needs_mujoco
def test_an_episode_that_blows_up_is_played_from_another_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes, opened = [], collecting.opened

    def opening(spec: Spec, episode: int, attempt: int) -> table.Table:
        scenes.append(opened(spec, episode, attempt))
        return scenes[-1]

    spec = GranularSpec(pushes=1, size=8, grains=2, seed=5)
    first = play(spec, 3)
    monkeypatch.setattr(collecting, "opened", opening)
    monkeypatch.setattr(table.Table, "broken", property(lambda scene: scene is scenes[0]))
    second = play(spec, 3)
    assert len(scenes) == 2
    assert np.abs(first["places"][0] - second["places"][0]).max() > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_pushes_start_on_the_table_free_of_the_object_and_go_through_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = rng.uniform(-0.1, 0.1, (6, 2))
    pusher = table.Pusher("", half_width=0.02, clearance=0.03, height=0.0)
    start, end = table.choose_push(places, rng, pusher, 0.3).reshape(2, 2).astype(float)
    assert np.abs(start).max() <= 0.3
    assert np.linalg.norm(end) <= 0.3
    assert np.linalg.norm(places - start, axis=1).min() > 0.03
    heading = (end - start) / np.linalg.norm(end - start)
    beside = np.abs((places - start) @ np.array([-heading[1], heading[0]]))
    assert beside.min() < 1e-6


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ModuleNotFoundError) as caught:
        collect("pusht", PushTSpec(), tmp_path)
    assert caught.value.name == "gym_pusht"
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "Traceback\nImportError: no driver")
    )
    with pytest.raises(InputError, match=r"egl: ImportError: no driver; osmesa: .*install libegl1 or libosmesa6"):
        table.headless()


@pytest.mark.parametrize(
    ("spec", "field"),
    [(PushTSpec, "episodes"), (RopeSpec, "links"), (GranularSpec, "grains"), (DrawerSpec, "length")],
)
def test_a_wrong_spec_is_one_sentence(spec: type, field: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{field}: expected at least"):
        spec(**{field: 0})
    with pytest.raises(InputError, match=r"expected a (PushTSpec|RopeSpec)"):
        collect("rope" if spec is PushTSpec else "pusht", spec(), tmp_path)


def test_specs_are_known_without_simulators() -> None:
    code = "import sys, rlvr_world.domains.video.envs; print({'torch', 'mujoco', 'gym_pusht', 'cv2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed (extra: metaworld)")
def test_a_changed_look_of_the_drawer_changes_pictures_and_nothing_else() -> None:
    spec = DrawerSpec(size=32)
    with closing(opened(spec, 0)) as plain, closing(opened(spec, 0)) as painted:
        painted.repaint()
        for action in islice(plain.hand, 4):
            shift = np.abs(plain.picture().astype(float) - painted.picture()).mean()
            assert 8 < shift < 40  # of 255: visible, and still the same scene
            plain.act(action)
            painted.act(action)
            np.testing.assert_array_equal(plain.state, painted.state)
            np.testing.assert_array_equal(plain.env.data.qpos, painted.env.data.qpos)
        last = plain.picture()
    with closing(opened(spec, 0)) as one, closing(opened(spec, 0)) as other:  # the simulators are used again
        assert one.picture().tobytes() == other.picture().tobytes() != last.tobytes()
