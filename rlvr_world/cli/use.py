"""Verbs that use a trained model: predict."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.cli.parser import Verbs
from rlvr_world.errors import InputError

if TYPE_CHECKING:
    from rlvr_world.runs.world_model import WorldModel


def add_verbs(verbs: Verbs) -> None:
    predict = verbs.add("predict", _predict, "what comes next: the state after an action")
    predict.add_argument("model", metavar="RUN|MODEL", help="a run folder, a model folder, or a hub id")
    predict.add_argument(
        "questions", metavar="FILE", nargs="?", default="", help="lines of {state, action} in JSON, or .npz; - is stdin"
    )
    predict.add_argument("--row", metavar="ID", default="", help="a row of the recipe, by its id or the end of it")
    predict.add_argument("--samples", metavar="N", type=int, default=1, help="samples a question (1)")
    predict.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0, the most likely token")
    predict.add_argument("--seed", metavar="S", type=int, default=0, help="of the samples (0)")
    predict.add_argument("--recipe", metavar="RECIPE", default="", help="the model's recipe, where that has moved")
    predict.add_argument("--out", metavar="FOLDER", type=Path, default=Path(), help="where pictures go (.)")


def _predict(args: argparse.Namespace) -> None:
    from rlvr_world.runs.world_model import load
    from rlvr_world.types import Malformed, Picture

    if bool(args.row) == bool(args.questions):
        raise InputError("predict: expected either --row ID or a FILE of questions (- for stdin); give one of them")
    world = load(args.model, recipe=args.recipe)
    asked = [_row(world, args.row)] if args.row else [world.recipe.question(q) for q in _questions(args.questions)]
    answers = world.predict_rows(asked, args.samples, args.temperature, args.seed)
    for row, states in zip(asked, answers, strict=True):
        for number, state in enumerate(states if args.samples > 1 else [states]):
            if isinstance(state, Malformed):
                print(json.dumps({"malformed": state.reason}))
                continue
            shown = world.recipe.shown(state)
            if isinstance(shown, Picture):
                file = args.out / f"{_file_name(row.id)}-{number}.{shown.media.partition('/')[2]}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(shown.data)
                shown = str(file)
            print(shown)


def _questions(place: str) -> Iterator[Any]:
    """What stands in a file: lines of JSON, or the arrays ``image`` and ``action`` (and ``proprio``) of an .npz."""
    if place.endswith(".npz"):
        import numpy as np

        with np.load(place, allow_pickle=False) as arrays:
            yield {"state" if name == "image" else name: arrays[name] for name in arrays.files}
        return
    lines = getattr(sys.stdin, "buffer", sys.stdin) if place == "-" else Path(place).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:  # bad UTF-8, brackets without end
                raise InputError(f"{place}, line {number}: expected JSON, got {line[:60]!r} ({error})") from error


def _row(world: WorldModel, name: str) -> Any:
    splits = world.recipe.splits(world.config)
    rows = [row for part in (splits.test, splits.valid, splits.train) for row in part if row.id.endswith(name)]
    exact = [row for row in rows if row.id == name]
    if len({row.id for row in rows}) == 1 or exact:
        return (exact or rows)[0]
    some = rows or splits.test
    raise InputError(
        f"row {name!r}: expected the end of one id of {world.config.recipe}, it is that of {len(rows)}; there is "
        f"{', '.join(repr(row.id) for row in some[:3]) or 'no test row'}"
    )


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)
