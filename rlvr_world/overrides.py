"""Typed settings: nested dataclasses shown as a table, overridden by ``a.b=c``, written to JSON and read back.

Knows no field names. A setting is a leaf of the nested dataclasses, named by its dotted path; its type is its
annotation (int, float, bool, str, Literal, Optional of these, tuple of these), its ``help`` and ``unit`` come
from the field's metadata. Every fault raises ``InputError``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import shutil
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from rlvr_world.errors import InputError

C = TypeVar("C")


@dataclass(frozen=True)
class Setting:
    """One leaf of a config: its dotted name, annotation, value, help and unit."""

    name: str
    kind: Any
    value: Any
    help: str
    unit: str


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """The leaves of a config, in the order of its fields."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from settings(value, name + ".")
        else:
            told = (field.metadata.get(key, "") for key in ("help", "unit"))
            yield Setting(name, hints[field.name], value, *told)


def describe(config: Any, width: int | None = None, group: str = "") -> str:
    """Every setting on a line: ``name=value``, type (unit), help; as wide as ``width`` characters or the terminal.

    ``group`` takes only those of a group, such as ``rl``. Raises InputError, with the nearest, for an unknown one.
    """
    width = width or shutil.get_terminal_size((120, 24)).columns
    known = {s.name: s for s in settings(config)}
    if group and group not in known.keys() | _sections(known):
        near = difflib.get_close_matches(group, _sections(known), 1, 0)
        raise InputError(f"there is no group of settings {group!r}; the nearest is {near[0] if near else 'none'!r}")
    chosen = [s for name, s in known.items() if not group or name == group or name.startswith(f"{group}.")]
    rows = [(_crop(f"{s.name}={_show(s.value)}"), _crop(_expected(s)), s.help) for s in chosen]
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    indent, lines = first + second + 6, []
    for name, kind, text in rows:
        head = f"  {name:<{first}}  {kind:<{second}}  "
        wrapped = textwrap.wrap(text, max(width, indent + 32), initial_indent=head, subsequent_indent=" " * indent)
        lines += wrapped or [head.rstrip()]
    return "\n".join(lines)


def override(config: C, items: Sequence[str]) -> C:
    """The config with ``["rl.steps=30", ...]`` laid over it, each value read by the type of its field."""
    known = {s.name: s for s in settings(config)}
    changes: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"a setting is written name=value, such as {next(iter(known))}=..., but got {item!r}")
        if name in changes:
            raise InputError(f"setting {name} is given twice; give it once")
        changes[name] = _value(known, name, text, typed=True)
    return _replace(config, changes)


def laid_over(items: Sequence[str], given: Sequence[str]) -> list[str]:
    """Settings ``a.b=c``, those that are ``given`` in place of others of the same name."""
    names = {item.partition("=")[0] for item in given}
    return [*(item for item in items if item.partition("=")[0] not in names), *given]


def to_json(config: Any) -> Any:
    """The config as nested dicts, lists and scalars, for ``json.dump``."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return [to_json(part) for part in config] if isinstance(config, tuple) else config


def from_json(default: C, data: Mapping[str, Any], source: str = "config") -> C:
    """``data``, as ``to_json`` wrote it, laid over a recipe's default config; ``source`` names the file in errors."""
    known = {s.name: s for s in settings(default)}
    sections = _sections(known)
    changes: dict[str, Any] = {}

    def walk(values: Any, prefix: str) -> None:
        if not isinstance(values, Mapping):
            raise InputError(f"{source}: {prefix[:-1] or 'the whole'} must be an object of settings, got {values!r}")
        for key, value in values.items():
            name = f"{prefix}{key}"
            if name in sections:
                walk(value, name + ".")
            else:
                changes[name] = _value(known, name, value, where=f"{source}: ")

    walk(data, "")
    return _replace(default, changes)


def kind_name(kind: Any) -> str:
    """An annotation as a reader would say it: ``int``, ``cpu|cuda``, ``int or none``, ``int,...``."""
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if _is_union(kind):
        return " or ".join(kind_name(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return ",".join(kind_name(part) for part in get_args(kind))
    words = {bool: "true|false", str: "text", type(None): "none", Ellipsis: "..."}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _value(known: Mapping[str, Setting], name: str, given: Any, where: str = "", typed: bool = False) -> Any:
    """What is given for a setting, typed or in JSON, as a value of its type."""
    setting = known.get(name) or _unknown(name, known, where)
    try:
        return _read(setting.kind, given, typed)
    except ValueError:
        choices = get_args(setting.kind) if get_origin(setting.kind) is Literal else ()
        expected = "one of " + ", ".join(map(str, choices)) if choices else _expected(setting)
        told = f" ({setting.help})" if choices and setting.help else ""
        raise InputError(f"{where}setting {name}: expected {expected}, got {given!r}{told}") from None


def _read(kind: Any, value: Any, typed: bool) -> Any:
    """``value`` as the type ``kind``, without loss; ValueError where it is not one. One that is ``typed`` is text."""
    if _is_union(kind):
        for part in sorted(get_args(kind), key=lambda part: part is not type(None)):  # "none" would do as a text too
            with contextlib.suppress(ValueError):
                return _read(part, value, typed)
        raise ValueError
    if get_origin(kind) is tuple:
        parts, kinds = _split(value) if typed else value, get_args(kind)
        if not isinstance(parts, (list, tuple)):
            raise ValueError
        if kinds[1:] == (Ellipsis,):
            kinds = kinds[:1] * len(parts)
        return tuple(_read(k, part, typed) for k, part in zip(kinds, parts, strict=True))
    if typed:
        value = _scalar(kind, value)
    if kind is float and type(value) is int and abs(value) <= 2**53:  # a float holds each of these
        value = float(value)
    if get_origin(kind) is Literal:
        sound = any(type(value) is type(choice) and value == choice for choice in get_args(kind))
    else:
        sound = type(value) is kind and (kind is not float or math.isfinite(value))
    if not sound:
        raise ValueError
    return value


def _split(text: str) -> list[str]:
    inner = text.strip().removeprefix("[").removesuffix("]").removeprefix("(").removesuffix(")")
    parts = [part.strip() for part in inner.split(",")]
    return parts if parts[-1] else parts[:-1]  # an empty tuple, or the trailing comma of "(3,)"


def _scalar(kind: Any, text: str) -> Any:
    """What was typed, as far as it reads as ``kind``."""
    if kind in (int, float):
        return kind(text)
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if str(choice) == text), text)
    words: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, type(None): {"none": None, "null": None}}
    return words.get(kind, {}).get(text.lower(), text)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _sections(known: Mapping[str, Setting]) -> set[str]:
    return {name[:i] for name in known for i, c in enumerate(name) if c == "."}


def _replace(config: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """Replace leaves by dotted name, each dataclass once, so that its own checks see all of its changes together."""
    new: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        is_group = dataclasses.is_dataclass(value)
        new[field.name] = _replace(value, changes, name + ".") if is_group else changes.get(name, value)
    try:
        return dataclasses.replace(config, **new)
    except InputError as error:  # a group of settings knows its fields and not where it stands
        said = str(error)
        raise InputError(f"{prefix}{said}" if said.replace(":", " ").split()[0] in new else said) from error


def _unknown(name: str, known: Mapping[str, Setting], where: str) -> NoReturn:
    inside = next((k for k in known if k.startswith(name + ".")), None)
    if inside:
        raise InputError(f"{where}{name} is a group of settings; set one of its own, such as {inside}")

    def likeness(key: str) -> float:
        whole = difflib.SequenceMatcher(None, name, key).ratio()
        last = difflib.SequenceMatcher(None, name.rpartition(".")[2], key.rpartition(".")[2]).ratio()
        return whole + last

    raise InputError(f"{where}there is no setting {name!r}; the nearest is {max(known, key=likeness)!r}")


def _expected(setting: Setting) -> str:
    return kind_name(setting.kind) + (f" ({setting.unit})" if setting.unit else "")


def _crop(text: str) -> str:
    return text if len(text) <= 46 else text[:45] + "…"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_show(part) for part in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
