"""Data that nobody has described: which recipe reads them, and with which settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlvr_world.domains.video.episodes import Episodes, SeveralCamerasError
from rlvr_world.domains.video.readers import open_episodes
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import config_of, find
from rlvr_world.recipes.rows import RowsRecipe
from rlvr_world.vision.lpips import load_lpips

ROWS = {"bytesized32": (), "miniwob": ("data.source=files",), "json_world": ()}
"""Recipes over rows of text, with what makes them read files; the first wins where two read as many."""
CROPPED = 2048
"""Tokens of the longest prompt about a page: of longer ones what is far from the acted element goes."""
LAYOUTS = ("lerobot", "hdf5", "npz", "folder")
FEW = 40
"""Episodes below which a share of them by hash could be none."""


def described(place: str) -> list[str]:
    """The recipe that reads what lies at ``place`` (a file, a folder, a data set's id on the hub), then its settings.
    Raises InputError with what each reader says where none reads it."""
    path, said = Path(place).expanduser(), list[str]()
    place = str(path.resolve()) if path.exists() else place
    for read in (_rows, _episodes) if path.suffix in (".jsonl", ".json", ".gz", ".parquet") else (_episodes, _rows):
        if found := read(place, said):
            return found
    each = "; as ".join(said).replace(f"{place}: ", "")
    raise InputError(f"{place}: expected rows or episodes in a known layout, got none; as {each}")


def _rows(place: str, said: list[str]) -> list[str]:
    """Of the recipes over rows that which reads most of them, with room for the longest prompt and answer."""
    most, best, faulty = 0, "", False
    for name, files in ROWS.items():
        recipe, faults = find(name), list[InputError]()
        assert isinstance(recipe, RowsRecipe)
        try:
            count = len(recipe.read(override(recipe.config(), files), place, on_fault=faults.append))
        except InputError as error:
            said.append(f"{name}: {faults[0] if faults else error}")
            continue
        most, best, faulty = max((most, best, faulty), (count, name, bool(faults)), key=lambda found: found[0])
    if not best:
        return []
    settings, recipe = [*ROWS[best], f"data.train={place}", *["data.skip_faulty=true"] * faulty], find(best)
    config = override(config_of(best), settings)
    assert isinstance(recipe, RowsRecipe)
    lengths_N2 = recipe.measured(config, recipe.splits(config))[1]
    prompt, answer = (-(-int(longest * 1.2) // 32) * 32 for longest in lengths_N2.max(axis=0))
    prompt = min(prompt, CROPPED) if best == "miniwob" else prompt
    settings += [f"data.max_prompt={prompt}", f"data.max_response={answer}", f"model.context={prompt + answer}"]
    return [best, *settings, f"sft.batch={min(config.sft.batch, max(4, most // 20))}"]


def _episodes(place: str, said: list[str]) -> list[str]:
    """In the first layout that reads: one camera of several, frames of their own shape at about 64 x 64 pixels, at
    least ten of them an episode."""
    for layout in LAYOUTS:
        try:
            episodes, camera, faults = _opened(layout, place)
            high, wide = episodes.frames(0, [0]).shape[1:3]
            break
        except InputError as error:
            said.append(f"{layout}: {error}")
    else:
        return []
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


def _opened(layout: str, place: str) -> tuple[Episodes, str, list[InputError]]:
    """The episodes, with which of several cameras, and what is wrong with some."""
    faults = list[InputError]()
    try:
        return open_episodes(layout, place, on_fault=faults.append), "", faults
    except InputError as error:
        several = [one for one in (error, *faults) if isinstance(one, SeveralCamerasError) and one.known]
        if not several:
            raise (faults or [error])[0] from None
    (camera, *_), faults = several[0].known, []
    print(f"cameras: {', '.join(several[0].known)}; the first is taken, data.camera names others")
    return open_episodes(layout, place, camera=camera, on_fault=faults.append), camera, faults
