"""The reference page of an engine's options, written from its table."""

from __future__ import annotations

from itertools import groupby

from ostler.engines.base import Engine
from ostler.engines.options import Option


def render_options_markdown(engine: type[Engine]) -> str:
    """docs/engines/NAME.md, complete."""
    table = engine.options
    lines = [
        f"# {engine.title}: options",
        "",
        f"<!-- Written by `make docs` from the option table of `{engine.name}`; do not edit. -->",
        "",
        f"The options of engine `{engine.name}`, as of version {engine.as_of}.",
        "An option that is not set leaves the engine's own default; `0` and `false` are values.",
        "A flag that is not listed goes to `extra_args`.",
        "Every spelling of a flag is a name too, with or without its dashes (`-c`, `ctx_size`).",
        "",
    ]
    for group, options in groupby(table, key=lambda option: option.group):
        lines += [
            f"## {group.capitalize()}",
            "",
            "| option | flags | value | default | |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(option) for option in options]
        lines.append("")
    lines += ["## Decided by Ostler", "", "These are refused in options, `extra_args` and `env`.", ""]
    for owned in table.owned:
        flags = ", ".join(f"`{flag}`" for flag in owned.flags)
        variables = ", ".join(f"`{name}`" for name in owned.env)
        names = f"{flags} ({variables})" if flags and variables else flags or variables
        lines.append(f"- {names}: {owned.why}")
    lines += ["", "## Old spellings", ""]
    for old in table.renamed:
        flags = ", ".join(f"`{flag}`" for flag in (*old.flags, *old.negative_flags)) or f"`{old.name}`"
        lines.append(f"- {flags}: now `{old.option}`")
    for gone in table.gone:
        lines.append(f"- {', '.join(f'`{flag}`' for flag in gone.flags)}: gone; {gone.instead}")
    return "\n".join(lines) + "\n"


def _row(option: Option) -> str:
    names = f"`{option.name}`" + "".join(f", `{alias}`" for alias in option.aliases)
    flags = ", ".join(f"`{flag}`" for flag in (*option.flags, *option.negative_flags))
    if option.env and not flags:
        flags = f"`{option.env[0]}=`"
    if option.stands_for:
        flags = " and ".join(f"`{name}`" for name in option.stands_for)
    default = "" if option.default is None else f"`{str(option.default).lower()}`"
    help_text = option.help + (" **Obsolete.**" if option.old else "")
    help_text += f" Since {option.since}." if option.since else ""
    help_text += f" **Gone since {option.until}**: kept, not passed on." if option.until else ""
    if option.admin_only:
        help_text += " Only an administrator sets it."
    cells = (names, flags, _value(option), default, help_text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(option: Option) -> str:
    if option.choices:
        text = ", ".join(f"`{choice}`" for choice in option.choices)
    else:
        text = {"bool": "yes or no", "int": "whole number", "float": "number"}.get(option.type, option.type)
        low, high = option.minimum, option.maximum
        if low is not None and high is not None:
            text += f" {low:g} to {high:g}" if high < 1e6 else f" from {low:g}"
        elif low is not None:
            text += f" from {low:g}"
        elif high is not None:
            text += f" up to {high:g}"
        text += "".join(f", `{word}`" for word in option.words)
    if option.unit:
        text += f" ({option.unit})"
    return f"list of: {text}" if option.repeat else text
