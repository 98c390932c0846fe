"""Configuration from one source: frozen dataclasses give the flags, their help, and the keys of TOML files.

Values are checked, never coerced, except that a whole number may stand where a float is expected.
"""

import argparse
import dataclasses
import difflib
import json
import math
import operator
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from segmodel.common.errors import UserError
from segmodel.common.reading import parse_toml, read_text

Sections = Mapping[str, type]
Values = dict[str, dict[str, Any]]


def option(default: Any, help: str, source: str = "", *, choices: Sequence[str] = (), **bounds: float) -> Any:
    """A field of a ``Section``: its default, the text of ``--help``, where the default comes from, and its bounds.

    Args:
        choices: the texts that it may be; a ``Literal`` annotation is the same.
        bounds: any of ``at_least``, ``above``, ``at_most``, ``below``; of a list they hold for every number in it.
    """
    about = {"help": help, "source": source, "choices": tuple(choices), "bounds": bounds}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of settings: a frozen dataclass whose values are checked, type and bounds, when an instance is made.

    Raises:
        UserError: a value of another type or out of its bounds; the message names the field.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = checked(getattr(self, item.name), hints[item.name], item.name)
            object.__setattr__(self, item.name, value)
            _check_choice(item.name, value, item.metadata["choices"])
            _check_bounds(item.name, value, item.metadata["bounds"])


WITHIN: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "at_least": ("at least", operator.ge), "above": ("more than", operator.gt),
    "at_most": ("at most", operator.le), "below": ("less than", operator.lt),
}  # fmt: skip
"""Name of a bound -> its words, and the comparison that holds between a value within it and the bound."""


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if choices and not all(part in choices for part in (value if isinstance(value, tuple) else (value,))):
        raise UserError(f"{name}: expected one of {', '.join(map(str, choices))}, got {value!r:.200}")


def _check_bounds(name: str, value: Any, bounds: Mapping[str, float]) -> None:
    for kind, bound in bounds.items():
        words, holds = WITHIN[kind]
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not holds(number, bound):
                raise UserError(f"{name}: expected {words} {bound:g}, got {value}")


def _without_none(expected: Any) -> Any:
    """The annotated type of a value that is there."""
    if get_origin(expected) in (Union, types.UnionType):
        return next(part for part in get_args(expected) if part is not type(None))
    return expected


def checked(value: Any, expected: Any, name: str) -> Any:
    """``value`` if it is of the annotated type (lists become tuples), else a UserError that names it."""
    plain = _without_none(expected)
    if value is None and plain is not expected:
        return None
    origin, parts = get_origin(plain), get_args(plain)
    if origin is Literal:
        _check_choice(name, value, parts)
        return value
    if origin is tuple:
        repeated = len(parts) == 2 and parts[1] is Ellipsis
        if not isinstance(value, list | tuple) or (not repeated and len(value) != len(parts)):
            raise UserError(f"{name}: expected {_type_name(plain)}, got {value!r:.200}")
        kinds = parts[:1] * len(value) if repeated else parts
        return tuple(checked(item, kind, name) for item, kind in zip(value, kinds, strict=True))
    if plain is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not plain:
        raise UserError(f"{name}: expected {_type_name(plain)}, got {value!r:.200}")
    if plain is int and not -(1 << 63) <= value < 1 << 63:
        raise UserError(f"{name}: expected at most 64 bits, got {value}")
    if plain is float and not math.isfinite(value):
        raise UserError(f"{name}: expected a finite number, got {value!r:.200}")
    return value


def _type_name(expected: Any) -> str:
    if get_origin(expected) is not tuple:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        return names.get(expected, str(expected))
    parts = get_args(expected)
    if parts[-1] is Ellipsis:
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        return f"a list of {plural.get(parts[0], 'lists')}"
    return f"a list of {len(parts)} ({', '.join(_type_name(part) for part in parts)})"


def parsed(text: str, expected: Any, name: str) -> Any:
    """The value of a command-line text: numbers and lists in JSON, the outer brackets of a list left out or not."""
    expected = _without_none(expected)
    if expected is str or get_origin(expected) is Literal:
        return checked(text, expected, name)
    content = text
    if get_origin(expected) is tuple:
        inner = get_args(expected)[0]
        if inner is str or get_origin(inner) is Literal:
            return checked(_parts(text) if text else (), expected, name)
        depth = 2 if get_origin(inner) is tuple else 1
        content = text if text.startswith("[" * depth) or text == "[]" else f"[{text}]"
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{name}: expected {_type_name(expected)}, got {text!r:.200}") from None
    return checked(value, expected, name)


def _parts(text: str) -> tuple[str, ...]:
    """The texts between commas; a comma in brackets is part of a text."""
    marked = re.sub(r"\[(\[[^][]*\]|[^][])*\]", lambda found: found[0].replace(",", "\0"), text)
    return tuple(part.strip().replace("\0", ",") for part in marked.split(","))


def _shown(default: Any) -> str:
    """A default value as it would be given on the command line."""
    if default is None or default in ("", ()):
        return "none"
    text = default if isinstance(default, str) else json.dumps(default)
    if isinstance(default, tuple):
        text = ",".join(default) if isinstance(default[0], str) else text[1:-1].replace(", ", ",")
    return text


def add_flags(parser: argparse.ArgumentParser, sections: Sections) -> None:
    """One flag for each field of each section; absent flags stay out of the parsed namespace."""
    for title, section in sections.items():
        group = parser.add_argument_group(f"[{title}]")
        hints = get_type_hints(section)
        for item in dataclasses.fields(section):
            flag, kind = "--" + item.name.replace("_", "-"), _without_none(hints[item.name])
            source = item.metadata.get("source", "")
            text = f"{item.metadata.get('help', '')} (default: {_shown(item.default)}{'; ' + source if source else ''})"
            options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%"), "dest": item.name}
            if kind is bool:
                group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
                continue
            choices = get_args(kind) if get_origin(kind) is Literal else item.metadata["choices"]
            metavar = "{" + ",".join(map(str, choices)) + "}" if choices else item.name.upper()
            group.add_argument(flag, metavar=metavar, **options)


def flag_values(arguments: argparse.Namespace, sections: Sections) -> Values:
    """The fields given as flags, checked."""
    given = vars(arguments)
    values: Values = {}
    for title, section in sections.items():
        for name, expected in get_type_hints(section).items():
            if name in given:
                flag = "--" + name.replace("_", "-")
                value = given[name]
                value = parsed(value, expected, flag) if isinstance(value, str) else checked(value, expected, flag)
                values.setdefault(title, {})[name] = value
    return values


def from_flags(arguments: argparse.Namespace, section: type) -> Any:
    """The instance of one section that the flags of ``add_flags`` describe.

    Raises:
        UserError: a value that does not fit; the message names the flag.
    """
    values = flag_values(arguments, {"": section}).get("", {})
    try:
        return section(**values)
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise UserError(f"--{name.replace('_', '-')}:{rest}" if name in values else str(error)) from error


def read_toml(path: str | Path, sections: Sections) -> Values:
    """The fields of a TOML file with one table a section, checked; an unknown key is an error."""
    try:
        content = parse_toml(read_text(path, most="SEGMODEL_MAX_CONFIG_BYTES"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not a TOML file ({error})") from error
    return check_values(content, sections, str(path))


def check_values(content: Mapping[str, Any], sections: Sections, where: str) -> Values:
    """Checks section and field names and the types of the values; ``where`` opens each message."""
    values: Values = {}
    for title, table in content.items():
        if title not in sections or not isinstance(table, Mapping):
            raise UserError(f"{where}: unknown section or key {title!r}{nearest(title, sections)}")
        hints = get_type_hints(sections[title])
        for name, value in table.items():
            if name not in hints:
                raise UserError(f"{where}: unknown key {title}.{name}{nearest(name, hints)}")
            values.setdefault(title, {})[name] = checked(value, hints[name], f"{where}: {title}.{name}")
    return values


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: the known one that it resembles, or all."""
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})"


def build(section: type, *layers: Mapping[str, Any]) -> Any:
    """An instance of a section; later layers override earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    try:
        return section(**merged)
    except ValueError as error:
        raise UserError(str(error)) from error


def toml_text(value: Any) -> str:
    """A text, number, truth value or list of these as TOML writes it."""
    return json.dumps(value, ensure_ascii=False)


def to_toml(configuration: Mapping[str, Any]) -> str:
    """The dataclass instances as a TOML file that ``read_toml`` reads back; fields that are None are left out."""
    lines = []
    for title, instance in configuration.items():
        lines.append(f"[{title}]")
        for name, value in dataclasses.asdict(instance).items():
            if value is not None:
                lines.append(f"{name} = {toml_text(value)}")
        lines.append("")
    return "\n".join(lines)
