"""Where vLLM's program is, and what it says of itself: it lives in a Python of its own."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from ostler.engines.asking import run_program
from ostler.engines.base import Capabilities

AS_MODULE = ("-m", "vllm.entrypoints.openai.api_server")
READER = Path(__file__).with_name("vllm_flags.py")


def program_in(environment: Path) -> tuple[str, ...] | None:
    """How vLLM is started that is installed in that virtual environment; None where it is not."""
    python, script = environment / "bin" / "python", environment / "bin" / "vllm"
    packages = list(environment.glob("lib/python3*/site-packages/vllm*.dist-info"))
    if not python.exists() or not packages:
        return None
    # Builds for the CPU come under another name, and the script looks for the version of "vllm".
    named_vllm = any(package.name.startswith("vllm-") for package in packages)
    if named_vllm and script.exists():
        return (str(script), "serve")
    return (str(python), *AS_MODULE)


def complete(command: Sequence[str]) -> tuple[str, ...]:
    """A command with what a bare program lacks: `vllm` its `serve`, a `python` its module."""
    program = Path(command[0])
    if len(command) > 1:
        return tuple(command)
    if program.name.startswith("python"):
        return (*command, *AS_MODULE)
    if program.name != "vllm":
        return tuple(command)
    return program_in(program.parent.parent) or (*command, "serve")


async def read_package(command: tuple[str, ...]) -> Capabilities:
    """What the vLLM behind that command can do, read from its source by its own Python."""
    python = await asyncio.to_thread(_python_of, Path(command[0]))
    text = await run_program(*python, str(READER)) if python else None
    try:
        told = json.loads(text or "")
        return Capabilities(frozenset(told["flags"]), told["version"], sees_gpus=told["sees_gpus"])
    except (ValueError, KeyError, TypeError):
        return Capabilities(
            None, warning=f"{command[0]} does not say which flags it has: they are not checked beforehand"
        )


def _python_of(program: Path) -> tuple[str, ...] | None:
    """The Python that runs the program: itself, or the one that a script names in its first line."""
    if program.name.startswith("python"):
        return (str(program),)
    try:
        with program.open("rb") as script:
            first = script.readline(512).decode(errors="replace")
    except OSError:
        return None
    words = shlex.split(first[2:]) if first.startswith("#!") else []
    return tuple(words) if words and "python" in Path(words[-1]).name else None
