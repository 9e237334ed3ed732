"""One value of an option: checked, and written as command-line arguments."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ostler.core.errors import InvalidField
from ostler.engines.rows import Option, OptionValue

INT_LIMIT = 2**31 - 1
"""Engines read whole numbers in 32 bits; a row may say more."""

YES = ("true", "on", "yes", "1", "enabled")
NO = ("false", "off", "no", "0", "disabled")


class BadOptionValue(InvalidField):
    """An option has a value that it cannot have."""

    hint = "Correct it, or leave the option out: then the engine's own default holds."


def check_value(option: Option, value: Any, given: str | None = None) -> OptionValue:
    """One value, checked and in its option's type; text is read where a number is wanted."""
    where = given or option.name
    if not option.repeat:
        return _check_one(option, value, where)
    if isinstance(value, str) and option.joiner is not None:
        value = split_joined(value, option.joiner, quoted=option.quoted)
    elif isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        value = [value]
    checked = [_check_one(option, one, where) for one in value]
    for one in checked:
        if option.joiner is not None and not option.quoted and option.joiner in str(one):
            raise _bad(option, where, f"values without {option.joiner!r}", one)
    return checked


def split_joined(text: str, joiner: str, *, quoted: bool = False) -> list[str]:
    """The parts of a joined value; quotes protect the joiner where the engine reads CSV."""
    if not quoted:
        return [part.strip() for part in text.split(joiner) if part.strip()]
    return [part for part in next(csv.reader([text]), []) if part]


def _check_one(option: Option, value: Any, where: str) -> bool | int | float | str:
    match option.type:
        case "bool":
            return _check_bool(option, value, where)
        case "int" | "float":
            return _check_number(option, value, where)
        case "json":
            return _check_json(option, value, where)
        case _:
            return _check_text(option, value, where)


def _bad(option: Option, where: str, must: str, value: Any) -> BadOptionValue:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    facts: dict[str, Any] = {
        key: limit
        for key, limit in (("minimum", option.minimum), ("maximum", option.maximum))
        if limit is not None
    }
    if option.choices or option.words:
        facts["choices"] = list(option.choices or option.words)
    return BadOptionValue(f"options.{where}", f"{where} must be {must}, not {shown}", **facts)


def _check_bool(option: Option, value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    if text in YES:
        return True
    if text in NO:
        return False
    raise _bad(option, where, "true or false", value)


def _check_number(option: Option, value: Any, where: str) -> int | float | str:
    must = _number_rule(option)
    number: int | float
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in option.words:
            return text.lower()
        try:
            value = float(text) if option.type == "float" else int(text)
        except ValueError:
            raise _bad(option, where, must, text) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(option, where, must, value)
    if not math.isfinite(value) or (option.type == "int" and not float(value).is_integer()):
        raise _bad(option, where, must, value)
    number = int(value) if option.type == "int" else float(value)
    limit = INT_LIMIT if option.type == "int" else math.inf
    lowest = -limit if option.minimum is None else option.minimum
    highest = limit if option.maximum is None else option.maximum
    if number < lowest or number > highest:
        raise _bad(option, where, must, number)
    return number


def _number_rule(option: Option) -> str:
    kind = "a whole number" if option.type == "int" else "a number"
    low, high = (None if limit is None else f"{limit:g}" for limit in (option.minimum, option.maximum))
    if option.minimum is not None:
        low = str(int(option.minimum)) if float(option.minimum).is_integer() else low
    if option.maximum is not None:
        high = str(int(option.maximum)) if float(option.maximum).is_integer() else high
    if low and high:
        kind += f" from {low} to {high}"
    elif low:
        kind += f" of at least {low}"
    elif high:
        kind += f" of at most {high}"
    return kind + "".join(f" or {word!r}" for word in option.words)


def _check_text(option: Option, value: Any, where: str) -> str:
    if isinstance(value, bool) and {"on", "off"} <= set(option.choices):
        return "on" if value else "off"
    if option.values > 1 and isinstance(value, list | tuple):
        value = " ".join(str(part) for part in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (option.values > 1 and len(value.split()) != option.values):
        raise _bad(option, where, "text", value)
    if "\0" in value:
        raise _bad(option, where, "text without a NUL character", value)
    if option.choices:
        return _check_choice(option, value, where)
    if option.type == "path" and not value.strip():
        raise _bad(option, where, "a path", value)
    return value


def _check_json(option: Option, value: Any, where: str) -> str:
    """JSON, as a value or as its text, in one spelling: the same settings are the same launch."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
        return json.dumps(read, sort_keys=True, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise _bad(option, where, "JSON", value) from None


def _check_choice(option: Option, value: str, where: str) -> str:
    if value in option.choices:
        return value
    folded = value.strip().lower()
    for choice in option.choices:
        if choice.lower() == folded:
            return choice
    if {"on", "off"} <= set(option.choices) and folded in (*YES, *NO):
        return "on" if folded in YES else "off"
    raise _bad(option, where, "one of " + ", ".join(option.choices), value)


def write_option(option: Option, value: OptionValue) -> list[str]:
    """A checked value as command-line arguments; a `bool` without a fitting flag writes nothing."""
    if isinstance(value, bool):
        flag = option.flag if value else option.negative_flag
        return [flag] if flag else []
    flag = option.flag
    if flag is None:
        return []
    if isinstance(value, list):
        texts = [write_value(one) for one in value]
        if option.joiner is not None:
            return [flag, option.joiner.join(_quote(option, text) for text in texts)] if texts else []
        if option.spread:
            return [flag, *texts] if texts else []
        return [part for text in texts for part in (flag, *split_values(option, text))]
    return [flag, *split_values(option, write_value(value))]


def write_env(value: OptionValue) -> str:
    """A checked value as an environment variable; yes and no are 1 and 0."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return ",".join(map(write_value, value)) if isinstance(value, list) else write_value(value)


def _quote(option: Option, text: str) -> str:
    """A value that holds the joiner, in quotes with inner quotes doubled."""
    if option.joiner and option.quoted and (option.joiner in text or '"' in text):
        return '"' + text.replace('"', '""') + '"'
    return text


def split_values(option: Option, text: str) -> list[str]:
    """The arguments of a flag that takes several ("1 8" of a range is two arguments)."""
    return text.split(None, option.values - 1) if option.values > 1 else [text]


def write_value(value: bool | int | float | str) -> str:
    """A number without needless digits, text as it is."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)
