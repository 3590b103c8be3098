"""Typed settings: nested dataclasses shown as a table, overridden by ``a.b=c``, written to JSON and read back.

Knows no field names. A setting is a leaf of the nested dataclasses, named by its dotted path; its type is its
annotation (int, float, bool, str, Literal, Optional of these, tuple of these), its ``help`` and ``unit`` come
from the field's metadata. Every fault raises ``InputError``.
"""

from __future__ import annotations

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
            yield Setting(
                name, hints[field.name], value, field.metadata.get("help", ""), field.metadata.get("unit", "")
            )


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
        hanging = textwrap.wrap(text, max(width - indent, 32)) or [""]
        lines.append((head + hanging[0]).rstrip())
        lines += [" " * indent + line for line in hanging[1:]]
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
        setting = known.get(name) or _unknown(name, known)
        try:
            changes[name] = _from_text(setting.kind, text)
        except ValueError:
            raise _wrong(name, setting, text) from None
    return _replace(config, changes)


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
                continue
            setting = known.get(name) or _unknown(name, known, source)
            try:
                changes[name] = _from_json(setting.kind, value)
            except ValueError:
                raise _wrong(name, setting, value, source) from None

    walk(data, "")
    return _replace(default, changes)


def kind_name(kind: Any) -> str:
    """An annotation as a reader would say it: ``int``, ``cpu|cuda``, ``int or none``, ``int,...``."""
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if _is_union(kind):
        return " or ".join("none" if part is type(None) else kind_name(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return ",".join("..." if part is Ellipsis else kind_name(part) for part in get_args(kind))
    return {bool: "true|false", str: "text"}.get(kind, getattr(kind, "__name__", str(kind)))


def _from_text(kind: Any, text: str) -> Any:
    """A value of type ``kind`` from what was typed; ValueError where it does not read as one."""
    if _is_union(kind):
        if text.lower() in ("none", "null") and type(None) in get_args(kind):
            return None
        return _first(_from_text, kind, text)
    if get_origin(kind) is Literal:
        return _from_json(kind, next((c for c in get_args(kind) if str(c) == text), text))
    if get_origin(kind) is tuple:
        inner = text.strip().removeprefix("[").removesuffix("]").removeprefix("(").removesuffix(")")
        parts = [part.strip() for part in inner.split(",")]
        if parts[-1] == "":  # an empty tuple, or the trailing comma of "(3,)"
            parts.pop()
        return tuple(_from_text(k, part) for k, part in zip(_element_kinds(kind, len(parts)), parts, strict=True))
    if kind is bool:
        return _from_json(bool, {"true": True, "false": False}.get(text.lower()))
    if kind in (int, float):
        return _from_json(kind, kind(text))
    return _from_json(kind, text)


def _from_json(kind: Any, value: Any) -> Any:
    """``value`` as the type ``kind``, without loss; ValueError where it is not one."""
    if _is_union(kind):
        return _first(_from_json, kind, value)
    if get_origin(kind) is Literal:
        match = [c for c in get_args(kind) if c == value and type(c) is type(value)]
        if not match:
            raise ValueError
        return match[0]
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(_from_json(k, part) for k, part in zip(_element_kinds(kind, len(value)), value, strict=True))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError
    return value


def _first(read: Any, kind: Any, value: Any) -> Any:
    for part in get_args(kind):
        try:
            return read(part, value)
        except ValueError:
            continue
    raise ValueError


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _element_kinds(kind: Any, count: int) -> list[Any]:
    kinds = get_args(kind)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return [kinds[0]] * count
    if len(kinds) != count:
        raise ValueError
    return list(kinds)


def _sections(known: Mapping[str, Setting]) -> set[str]:
    return {name[:i] for name in known for i, c in enumerate(name) if c == "."}


def _replace(config: Any, changes: Mapping[str, Any]) -> Any:
    """Replace leaves by dotted name, each dataclass once, so that its own checks see all of its changes together."""
    groups: dict[str, dict[str, Any]] = {}
    direct: dict[str, Any] = {}
    for name, value in changes.items():
        head, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(head, {})[rest] = value
        else:
            direct[head] = value
    for head, inner in groups.items():
        direct[head] = _replace(getattr(config, head), inner)
    return dataclasses.replace(config, **direct)


def _unknown(name: str, known: Mapping[str, Setting], source: str = "") -> NoReturn:
    where = f"{source}: " if source else ""
    inside = next((k for k in known if k.startswith(name + ".")), None)
    if inside:
        raise InputError(f"{where}{name} is a group of settings; set one of its own, such as {inside}")

    def likeness(key: str) -> float:
        whole = difflib.SequenceMatcher(None, name, key).ratio()
        last = difflib.SequenceMatcher(None, name.rpartition(".")[2], key.rpartition(".")[2]).ratio()
        return whole + last

    raise InputError(f"{where}there is no setting {name!r}; the nearest is {max(known, key=likeness)!r}")


def _wrong(name: str, setting: Setting, got: Any, source: str = "") -> InputError:
    where = f"{source}: " if source else ""
    if get_origin(setting.kind) is Literal:
        expected = "one of " + ", ".join(str(choice) for choice in get_args(setting.kind))
    else:
        expected = _expected(setting)
    return InputError(f"{where}setting {name}: expected {expected}, got {got!r}")


def _expected(setting: Setting) -> str:
    return kind_name(setting.kind) + (f" ({setting.unit})" if setting.unit else "")


def _crop(text: str) -> str:
    return text if len(text) <= 46 else text[:45] + "…"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_show(part) for part in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
