"""`--help` and `--version`, written from the option table without loading the engine."""

from __future__ import annotations

from ostler.engines.llama_server.fields import REFUSED
from ostler.engines.llama_server.parameters import HONOURED_OWNED
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import Option


def help_text() -> str:
    """The flags that this program honours, in llama-server's layout. What it refuses is left out."""
    lines = ["usage: ostler-llama-server --model FILE [options]", ""]
    lines += ["-h,    --help                          print this and exit"]
    lines += ["--version                              print the version and exit"]
    for owned in TABLE.owned:
        for flag in owned.flags:
            if flag in HONOURED_OWNED:
                flags = ", ".join(reversed(owned.flags))
                lines.append(f"{flags} {'VALUE' if owned.values else ''}")
    group = None
    for option in TABLE:
        if option.name in REFUSED or not option.flags:
            continue
        if option.group != group:
            group = option.group
            lines += ["", f"----- {group} -----", ""]
        lines += _describe(option)
    return "\n".join(lines) + "\n"


def _describe(option: Option) -> list[str]:
    flags = ", ".join((*option.flags[1:], option.flags[0], *option.negative_flags))
    value = ""
    if option.type != "bool":
        value = " " + ("{" + ",".join(option.choices) + "}" if option.choices else option.type.upper())
    text = option.help
    if option.default is not None:
        text += f" (default: {str(option.default).lower() if option.type == 'bool' else option.default})"
    lines = [flags + value, f"{'':39}{text}"]
    lines += [f"{'':39}(env: {name})" for name in option.env]
    return lines


def version_text() -> str:
    """The llama.cpp build inside, as llama-server says it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        wheel = version("xllamacpp")
    except PackageNotFoundError:
        return "version: unknown (xllamacpp is not installed)\n"
    return f"version: {wheel.rpartition('.')[2]} (xllamacpp {wheel})\n"
