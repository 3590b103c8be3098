"""Robot data sets in RLDS (RT-1 and its kin of Open X-Embodiment), rewritten as the published npz layout.

Needs tensorflow_datasets, which nothing else here does. Source of the layout, of the versions and of the names of the
pictures: the converter of iVideoGPT and RLVR-World.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.domains.video.readers.npz import write_npz
from rlvr_world.errors import InputError

_VERSIONS = {"robo_net": "1.0.0", "cmu_playing_with_food": "1.0.0", "language_table": "0.0.1"}
"""Where it is not 0.1.0."""
_IMAGES = {"taco_play": "rgb_static", "roboturk": "front_rgb", "viola": "agentview_rgb", "language_table": "rgb"}
"""Which picture is taken where it is not ``image``."""
_NUMBERED = ("stanford_robocook_converted_externally_to_rlds", "uiuc_d3field")
"""Data sets of four cameras: the name with a digit after it takes ``image_<digit>``."""


def convert(source: str, dataset: str, out: Path, max_episodes: int = 0) -> int:
    """Writes ``out/<dataset>/<split>_eps_<8 digits>.npz``, one file an episode; returns how many are new.

    ``source``: the folder (or gs:// address) that holds ``<dataset>/<version>``. ``max_episodes``: at most so many
    files over all splits, those that are there already included; 0 takes all. Files that exist are left as they are,
    so that the same command goes on where it was stopped.
    Raises InputError for an unknown data set, and for an episode without the pictures or actions, by its number.
    """
    import tensorflow_datasets as tfds

    folder, image = _place(source, dataset)
    try:
        builder = tfds.builder_from_directory(builder_dir=folder)
    except (OSError, ValueError, AssertionError) as error:
        raise InputError(f"{folder}: not an RLDS data set ({error}); check the folder and the name") from None
    (out / dataset).mkdir(parents=True, exist_ok=True)
    written = seen = 0
    for split in sorted(builder.info.splits):
        for number, episode in enumerate(tfds.as_numpy(builder.as_dataset(split=split))):
            if max_episodes and seen >= max_episodes:
                return written
            seen += 1
            file = out / dataset / f"{split}_eps_{number:08d}.npz"
            if file.exists():
                continue
            images, actions = _arrays(episode["steps"], image, f"{folder}, split {split}, episode {number}")
            write_npz(file, {"image": images, "action": actions})
            written += 1
    return written


def _place(source: str, dataset: str) -> tuple[str, str]:
    """The folder of a data set, and which of its pictures to take."""
    base, digit = dataset[:-1], dataset[-1:]
    if base in _NUMBERED:
        if digit not in "1234":
            raise InputError(f"data set {dataset}: expected a camera of 1 to 4 after the name, got {digit}")
        return f"{source}/{base}/0.1.0", f"image_{digit}"
    return f"{source}/{dataset}/{_VERSIONS.get(dataset, '0.1.0')}", _IMAGES.get(dataset, "image")


def _arrays(steps: Iterable[Mapping[str, Any]], image: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The frames, uint8 [T, H, W, 3], and the actions, float32 [T, A], of one episode."""
    images, actions = [], []
    for number, step in enumerate(steps):
        for field, values in ((image, step.get("observation", {})), ("action", step)):
            if field not in values:
                wanted, found = f"expected the field {field}", ", ".join(sorted(values)) or "nothing"
                raise InputError(f"{where}, step {number}: {wanted}, found {found}; take another data set")
        images.append(np.asarray(step["observation"][image]))
        actions.append(_row(step["action"]))
    if not images:
        raise InputError(f"{where}: expected steps, found none; download the data set again")
    if len({row.shape for row in actions}) > 1 or len({picture.shape for picture in images}) > 1:
        raise InputError(f"{where}: expected frames of one size and actions of one width; take another data set")
    return np.stack(images), np.stack(actions)


def _row(action: Any) -> np.ndarray:
    """An action as one row, float32 [A]; dictionaries in the alphabetical order of their keys."""
    if isinstance(action, Mapping):
        return np.concatenate([_row(action[key]) for key in sorted(action)])
    return np.asarray(action, np.float32).reshape(-1)
