"""What a user finds with ``dir(rlvr_world)`` and ``help()``, and that finding it costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rlvr_world

NOUNS = {"Transition", "Given", "Write", "Script", "Rollout", "Score", "Malformed", "Picture"}


def test_the_nouns_and_the_doors_are_there() -> None:
    assert NOUNS | {"load", "train", "resume", "Recipe", "Splits", "WorldModel", "InputError"} <= set(dir(rlvr_world))
    for name in rlvr_world.__all__:
        assert inspect.getdoc(getattr(rlvr_world, name)), name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = rlvr_world.lode


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, rlvr_world; from rlvr_world import Transition, Script, Recipe; rlvr_world.Score(1.0);"
        "print({'torch', 'transformers', 'numpy', 'pyarrow', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_types_are_told_to_type_checkers() -> None:
    assert (Path(rlvr_world.__file__).parent / "py.typed").is_file()
    wanted = inspect.signature(rlvr_world.WorldModel.predict).parameters
    assert list(wanted)[1:] == ["state", "action", "n", "temperature", "seed"]
