"""Recipes: a name, a whole config, and which domain reads it. The one place where domains are told apart.

A recipe of one's own is a file, a module, or an entry point of the group ``rlvr_world.recipes``; see ``find``.
Nothing heavy is imported before a method needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.overrides import to_json
from rlvr_world.recipes.tasks import Look, Reach, Task, Trial, Walk
from rlvr_world.types import Domain, Finding, Judged, Outcome, Picture, Rows, Scene, Transition, World

if TYPE_CHECKING:
    from importlib import metadata

    from rlvr_world.models.head import Model
    from rlvr_world.models.text_tokenizer import TextTokenizer
    from rlvr_world.training.visual_tokenizer import VisualTokenizerTraining

Made = Callable[[], Config]
BUILT_IN = {
    "text_game": "text_game:TextGameRecipe",
    "json_world": "json_world:JsonWorldRecipe",
    "web_page": "web_page:WebPageRecipe",
    "video": "video_recipe:VideoRecipe",
}
"""The modules of this package that hold configs, each by name in a mapping ``RECIPES``, and what makes them recipes."""
ENTRY_POINTS = "rlvr_world.recipes"


@dataclass(frozen=True)
class Splits:
    """Rows of a run, and what RL draws from in each epoch."""

    sft: Rows
    """What likelihood training fits."""
    train: Rows
    valid: Rows
    test: Rows
    epoch: Callable[[int, int], Rows] | None = None
    """(seed, epoch) -> the rows that RL draws from, as many in every epoch; None takes the training rows."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why rows that were read are in no split -> how many."""
    control: Rows | None = None
    """What RL's control fits, where that is not what SFT does: the rows that RL draws from."""
    closed_loop: Rows | None = None
    """For validation in the place of ``valid``: of several clips, of which the last goes on from what was drawn."""

    def rl_epoch(self, seed: int, epoch: int) -> Rows:
        return self.train if self.epoch is None else self.epoch(seed, epoch)


@dataclass(frozen=True)
class FirstStage:
    """What has to be trained before there can be a world model: for video its visual tokenizer."""

    name: str
    """Its checkpoints lie in ``RUN/<name>``."""
    steps: int
    save_every: int
    eval_every: int
    open: Callable[[], VisualTokenizerTraining]
    """The stage as it begins."""
    validate: Callable[[VisualTokenizerTraining], dict[str, float]]
    """Numbers of held-out data, named ``eval/...``."""


class Recipe(ABC):
    """How a run is put together: write ``config``, ``splits`` and ``domain``, and ``texts`` or ``new_model``.

    ``world`` is the folder that goes with a model wherever it goes, see ``write_world``; None where there is none.
    """

    @abstractmethod
    def config(self) -> Config:
        """Every setting with its default; ``data`` is a dataclass of the recipe's own."""

    @abstractmethod
    def splits(self, config: Config) -> Splits:
        """The rows. Raises InputError, naming file, row and field, where they do not read."""

    @abstractmethod
    def domain(self, config: Config, model: Model, tokenizer: TextTokenizer | None, world: Path | None) -> Domain:
        """What encodes, decodes and scores for this model."""

    def texts(self, config: Config, splits: Splits) -> Iterator[str]:
        """What the text tokenizer of a model from scratch is trained on."""
        raise InputError(f"recipe {config.recipe}: model.source=scratch needs texts() or new_model(); write one")

    def new_model(self, config: Config, splits: Splits, world: Path | None) -> tuple[Model, TextTokenizer | None]:
        """A model with random weights: here over a text tokenizer that is trained on ``texts``."""
        from rlvr_world.models.loading import create_model
        from rlvr_world.models.text_tokenizer import train_text_tokenizer

        shape = config.model
        tokenizer = train_text_tokenizer(self.texts(config, splits), shape.vocabulary, shape.pieces)
        return create_model(shape, len(tokenizer), tokenizer, config.seed), tokenizer

    def protocol(self, config: Config) -> dict[str, Any]:
        """The settings that an evaluation result depends on, besides the rows."""
        return {"domain": type(self).__name__, "data": to_json(config.data)}

    def lengths(self, config: Config) -> tuple[int, int, int]:
        """Token ids of a model from scratch, and the most tokens of a prompt and of an answer."""
        raise InputError(f"recipe {config.recipe}: nothing says how long its texts are; write lengths()")

    # What only some recipes need

    def adopt(self, config: Config, model: Model, world: Path) -> None:
        """Write into the config of a model that was trained elsewhere what its tokens mean; see ``runs.adopt``."""
        raise InputError(f"recipe {config.recipe}: its models need no adopting; name them with model.source")

    def check_config(self, config: Config) -> None:  # noqa: B027
        """Raises InputError for settings that do not go together, before any row is read, collected or made."""

    def rehearse(self, config: Config, splits: Splits, stage: VisualTokenizerTraining) -> Domain | None:
        """The domain as it is with what the first stage begins with: what does not fit shows before it costs."""
        return None

    def first_stage(self, config: Config) -> FirstStage | None:
        """What is trained before there can be a model; None for nothing."""
        return None

    def write_world(self, config: Config, folder: Path, start: Path | None, run: Path) -> Config:
        """Write into ``folder`` what a model needs beside its weights to be used anywhere: rules, a visual tokenizer.

        ``start`` is the ``world`` of the model that training starts from, where it has one. Returns the config that
        goes with the model, in which these are no longer looked for elsewhere.
        """
        return config

    def prepare(self, config: Config, splits: Splits, world: Path, run: Path) -> None:  # noqa: B027
        """What else has to stand in the run folder before there can be a model; all ranks come here together."""

    def check_data(self, config: Config, domain: Domain) -> None:  # noqa: B027
        """Raises InputError where the rows are not of the kind that the model was trained on."""

    def row_faults(self, config: Config) -> list[str]:
        """What is wrong with each row of its files that does not read."""
        return []

    def unread(self, row: Transition) -> Iterator[str]:
        """What is wrong with the files that a row stands for, where these are read later."""
        return iter(())

    def findings(self, domain: Domain, rows: Rows, judged: Judged) -> list[Finding]:
        """What ``doctor`` should say besides, of the predictions of some rows and their scores."""
        return []

    def question(self, given: Any) -> Transition:
        """A transition without a next state out of ``{"state": ..., "action": ...}``, as files and users have them."""
        if not isinstance(given, Mapping) or not {"state", "action"} <= given.keys():
            raise InputError(f"question: expected an object with the keys state and action, got {given!r:.80}")
        return Transition(str(given.get("id", "question")), given["state"], given["action"], None)

    def scene(self, config: Config, domain: Domain) -> Scene:
        """How sessions imagine this world: here any that is over text, from the states of test rows on."""
        from rlvr_world.domains.scene import TextScene, start_rows

        def ask(state: Any, action: str) -> Transition | Outcome:
            try:
                return self.question({"state": state, "action": action})
            except InputError as error:
                return Outcome(state, info={"action_error": str(error)})

        def start(seed: int, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
            return options["state"] if "state" in options else choose(seed, options).state, {}

        choose = start_rows(lambda: self.splits(config).test)
        return TextScene(domain, start, ask, self.shown)

    def real(self, config: Config) -> World:
        """The real world behind the rows, to be stepped as the imagined one is."""
        raise InputError(f"recipe {config.recipe}: its rows come from files, not from a world that can be stepped")

    def recorded(self, config: Config) -> tuple[Sequence[Walk], Look]:
        """Held-out episodes whose actions can be replayed in imagination, and what is seen of them."""
        raise InputError(f"recipe {config.recipe}: expected recorded video to replay; ask `study rollouts` instead")

    def first_frames(self, config: Config) -> Mapping[str, Transition]:
        """By the names of held-out episodes rows whose state is the first frame."""
        raise InputError(f"recipe {config.recipe}: expected recorded video, whose first frames policies can start from")

    def shown(self, state: Any) -> str | Picture:
        """A state for a person or a file."""
        try:
            return state if isinstance(state, str) else json.dumps(state, ensure_ascii=False)
        except TypeError:  # no JSON
            return str(state)

    def tasks(self, config: Config) -> Mapping[str, Task | Reach]:
        """What planners try, by name; empty where a world has no goals."""
        return {}

    def trials(self, config: Config, domain: Domain) -> dict[str, Trial]:
        """What policies try, by name; empty where a world has no tasks for them."""
        return {}

    def inspect(self, config: Config, out: Path) -> str:
        """A look at the data before anything is trained on them; pictures go to the folder ``out``."""
        raise InputError(f"recipe {config.recipe}: it has nothing to inspect; write inspect()")

    def rewarded_by(self, config: Config) -> dict[str, Config]:
        """The config with the reward made of one metric alone, by metric; empty where the reward is what it is."""
        return {}


def recipes() -> dict[str, Made]:
    """Of every recipe that has a name what makes its config: those of this package win over those of entry points."""
    named = {name: _entry(entry).config for name, entry in _entries().items()}
    return {**named, **{name: config for name, (config, _) in _built_in().items()}}


def _built_in() -> dict[str, tuple[Made, str]]:
    modules = {made_by: importlib.import_module(f"rlvr_world.recipes.{name}") for name, made_by in BUILT_IN.items()}
    return {name: (config, made_by) for made_by, one in modules.items() for name, config in one.RECIPES.items()}


def _entries() -> dict[str, metadata.EntryPoint]:
    from importlib import metadata

    return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}


def _entry(entry: metadata.EntryPoint) -> Recipe:
    """The recipe that a package offers; InputError where its module is not there."""
    try:
        return _checked(entry.load(), f"entry point {entry.value}")
    except (ImportError, AttributeError) as error:
        raise InputError(f"recipe {entry.name}: its entry point {entry.value} does not load ({error})") from error


def find(name: str) -> Recipe:
    """The recipe of this name, or ``recipe`` in the file or module of this name (``file.py:other`` takes ``other``).

    Raises InputError where there is none; what the file itself raises is left as it is.
    """
    place, _, attribute = name.partition(":")
    if place.endswith(".py"):
        return _checked(named_in(name), name)
    if name in (known := _built_in()):
        config, made_by = known[name]
        return _checked(pkgutil.resolve_name(f"rlvr_world.recipes.{made_by}")(config), name)
    if name in (entries := _entries()):
        return _entry(entries[name])
    if "." in place and _is_module(place):
        return _checked(getattr(importlib.import_module(place), attribute or "recipe", None), name)
    names = ", ".join([*known, *entries])
    raise InputError(f"recipe {name!r} does not exist; there are {names}; or name a file (recipe.py) or package.module")


def named_in(spec: str) -> Any:
    """What ``FILE.py:NAME`` names, None for nothing; without a name what is called ``recipe`` there."""
    place, _, name = spec.partition(":")
    return getattr(_file(Path(place).expanduser()), name or "recipe", None)


def config_of(name: str) -> Config:
    """The recipe's config, which bears the name under which ``find`` gives the recipe again from any folder."""
    place, colon, attribute = name.partition(":")
    if place.endswith(".py"):
        name = f"{Path(place).expanduser().resolve()}{colon}{attribute}"
    known = _built_in()
    return replace(known[name][0]() if name in known else find(name).config(), recipe=name)


def _file(path: Path) -> Any:
    """The module of a file, run once a process."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the path")
    if path.suffix != ".py":
        raise InputError(f"{path}: expected a Python file, NAME.py")
    name = f"rlvr_world_recipe_{path.resolve().as_posix().replace('/', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _checked(found: Any, name: str) -> Recipe:
    if not isinstance(found, Recipe):
        raise InputError(f"recipe {name}: expected an instance of rlvr_world.Recipe there, got {found!r:.80}")
    return found
