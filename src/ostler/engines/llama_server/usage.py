"""`--help`, `--version` and `--list-devices`: the first two without loading the engine."""

from __future__ import annotations

from typing import Any

from ostler.engines.llama_server.fields import REFUSED
from ostler.engines.llama_server.parameters import HONOURED_OWNED
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import Option


def help_text() -> str:
    """The flags that this program honours, in llama-server's layout. What it refuses is left out."""
    lines = ["usage: ostler-llama-server --model FILE [options]", ""]
    lines += ["-h,    --help                          print this and exit"]
    lines += ["--version                              print the version and exit"]
    lines += ["--list-devices                         print the devices beside the CPU and exit"]
    lines += ["--fit-memory                           print as JSON what it would allocate and exit"]
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


def devices_text(xllamacpp: Any) -> str:
    """What `--list-devices` prints, in llama-server's form: devices other than the CPU, or none."""
    others = [device for device in xllamacpp.get_device_info() if device["name"] != "CPU"]
    lines = [
        f"  {device['name']}: {device['description']} "
        f"({device['memory_total'] >> 20} MiB, {device['memory_free'] >> 20} MiB free)"
        for device in others
    ]
    return "\n".join(["Available devices:", *(lines or ["  (none)"])]) + "\n"
