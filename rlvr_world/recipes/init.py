"""Data that nobody has described: which recipe reads them, and with which settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rlvr_world.domains.row_files import ENDINGS, locate
from rlvr_world.domains.video.episodes import Episodes, SeveralCamerasError
from rlvr_world.domains.video.readers import open_episodes
from rlvr_world.errors import InputError
from rlvr_world.overrides import laid_over, override
from rlvr_world.recipes import config_of, find
from rlvr_world.recipes.rows import RowsRecipe
from rlvr_world.vision.lpips import load_lpips

ROWS = {"bytesized32": (), "miniwob": ("data.source=files",), "json_world": ()}
"""Recipes over rows of text, with what makes them read files; the first wins where two read as many."""
CROPPED = 2048
"""Tokens of the longest prompt about a page: of longer ones what is far from the acted element goes."""
KINDS: dict[str, tuple[str, ...]] = {
    "lerobot": ("/meta/info.json",),
    "hdf5": (".hdf5", ".h5"),
    "npz": (".npz",),
    "folder": (".mp4", ".mov"),
    "rows": ENDINGS,
    "pages": (".html",),
}
"""How a file's name ends that tells of each kind of data; the first is what is most likely there."""
FOREIGN = {
    r"/step_\d+\.pkl\.gz$": "AgentLab's pickles, and loading one runs code: make rows with docs/examples/agentlab.py",
    r"\.tfrecord": "RLDS: have `rlvr-world convert` make .npz episodes of it",
}
"""Files that no recipe reads as they are, and what to do."""
FEW = 40
"""Episodes below which a share of them by hash could be none."""


def described(place: str, given: Sequence[str] = ()) -> list[str]:
    """The recipe that reads what lies at ``place`` (a file, a folder, an address, a data set's id on the hub), then its
    settings, with those that are ``given``. Raises InputError with what the likeliest reader says where none does."""
    path, said = Path(place).expanduser(), list[InputError]()
    hub = not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", place)
    place = str(path.resolve()) if path.exists() else place
    kinds = ["lerobot", "rows"] if hub else ["pages"] if re.match("https?://", place) else _kinds(path)
    for kind in kinds:
        try:
            found = {"rows": _rows, "pages": _pages}.get(kind, partial(_episodes, kind))(place, given)
            return [found[0], *laid_over(found[1:], given)]
        except InputError as error:
            said.append(error)
    raise said[0]


def _kinds(path: Path) -> list[str]:
    """What a file or the files of a folder may be. Raises InputError where none is of a known kind."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path, or give owner/name of a data set on the hub")
    files = [path.name] if path.is_file() else [file.relative_to(path).as_posix() for file in path.rglob("*.*")]
    for sign, said in FOREIGN.items():
        if found := next((file for file in files if re.search(sign, f"/{file}")), ""):
            raise InputError(f"{path}: expected rows or episodes, got {found}: {said}")
    kinds = [kind for kind, ends in KINDS.items() if any(f"/{file}".lower().endswith(ends) for file in files)]
    if not kinds:
        known = ", ".join(end.strip("/") for ends in KINDS.values() for end in ends)
        got = ", ".join(sorted(files)[:3]) or "an empty folder"
        raise InputError(f"{path}: expected files of rows, episodes or pages, which end in {known}; got {got}")
    if path.is_file() and kinds[0] not in ("hdf5", "rows"):
        raise InputError(f"{path}: expected a folder of episodes or pages, got one of its files; give {path.parent}")
    return kinds


def _rows(place: str, given: Sequence[str]) -> list[str]:
    """Of the recipes over rows that which reads most of them."""
    locate(place, "text")
    most, best, faulty, said = 0, "", False, list[str]()
    for name, files in ROWS.items():
        recipe, faults = find(name), list[InputError]()
        assert isinstance(recipe, RowsRecipe)
        try:
            count = len(recipe.read(override(recipe.config(), files), place, on_fault=faults.append))
        except InputError as error:
            said.append(f"as {name}: {faults[0] if faults else error}".replace(f"{place}: ", ""))
            continue
        most, best, faulty = max((most, best, faulty), (count, name, bool(faults)), key=lambda found: found[0])
    if not best:
        raise InputError(f"{place}: expected rows in a known layout, got none; {'; '.join(said)}")
    settings = [*ROWS[best], f"data.train={place}", *["data.skip_faulty=true"] * faulty]
    return _roomy(best, laid_over(settings, given))


def _pages(place: str, given: Sequence[str]) -> list[str]:
    """Pages of a folder, or of a server that runs, played in a browser."""
    site = "folder" if Path(place).is_dir() else "url"
    return _roomy("miniwob", laid_over([f"data.env.site={site}", f"data.env.path={place}"], given))


def _roomy(name: str, settings: list[str]) -> list[str]:
    """A recipe over rows with room for the longest prompt and answer."""
    config, recipe = override(config_of(name), settings), find(name)
    assert isinstance(recipe, RowsRecipe)
    splits = recipe.splits(config)
    lengths_N2 = recipe.measured(config, splits)[1]
    prompt, answer = (-(-int(longest * 1.2) // 32) * 32 for longest in lengths_N2.max(axis=0))
    prompt = min(prompt, CROPPED) if name == "miniwob" else prompt
    room = [f"data.max_prompt={prompt}", f"data.max_response={answer}", f"model.context={prompt + answer}"]
    return [name, *settings, *room, f"sft.batch={min(config.sft.batch, max(4, len(splits.train) // 20))}"]


def _episodes(layout: str, place: str, given: Sequence[str]) -> list[str]:
    """One camera of several, frames of their own shape at about 64 x 64 pixels, at least ten of them an episode."""
    named = next((item.partition("=")[2] for item in given if item.startswith("data.camera=")), "")
    episodes, camera, faults = _opened(layout, place, named)
    high, wide = episodes.frames(0, [0]).shape[1:3]
    height, width = (max(32, min(160, round(8 * ratio**0.5) * 8)) for ratio in (high / wide, wide / high))
    count, skip = len(episodes.ids), int(max(1, min(5, np.median(episodes.lengths) // 10)))
    by_number = ["data.split.kind=every_nth", f"data.split.every={max(3, min(10, count // 3))}"]
    settings = by_number if count < FEW else []
    try:
        load_lpips("alex")
    except InputError:
        settings += ["data.lpips=none", "data.reward.lpips=0"]
    settings += [f"data.camera={camera}"] * bool(camera) + ["data.skip_faulty=true"] * bool(faults)
    settings += [f"data.frame_skip={skip}", f"data.action_pool={skip}", f"data.height={height}", f"data.width={width}"]
    return ["robot", f"data.source={layout}", f"data.path={place}", *settings]


def _opened(layout: str, place: str, camera: str) -> tuple[Episodes, str, list[InputError]]:
    """The episodes, with which of several cameras, and what is wrong with some."""
    faults = list[InputError]()
    try:
        return open_episodes(layout, place, camera=camera, on_fault=faults.append), camera, faults
    except InputError as error:
        several = [one for one in (error, *faults) if isinstance(one, SeveralCamerasError) and one.known]
        if not several or camera:
            raise (faults or [error])[0] from None
    print(f"cameras: {', '.join(several[0].known)}; the first is taken, data.camera names others")
    return _opened(layout, place, several[0].known[0])
