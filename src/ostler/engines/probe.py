"""Asking an executable what it can do: its `--help` and `--version`, remembered per file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ostler.engines.asking import run_program
from ostler.engines.base import Capabilities
from ostler.engines.listed_devices import ListedDevice, read_devices
from ostler.engines.sameness import file_state

FLAG_LINE = re.compile(r"^\s{0,4}(?:-{1,2}[A-Za-z])")


class Prober:
    """Probes each executable once, by `ask`; a changed one (path, size, time, packages) is probed again."""

    def __init__(
        self, ask: Callable[[tuple[str, ...]], Coroutine[Any, Any, Capabilities]] | None = None
    ) -> None:
        self._ask = ask or _ask_help
        self._known: dict[tuple[object, ...], asyncio.Task[Capabilities]] = {}
        self._devices: dict[tuple[object, ...], tuple[ListedDevice, ...] | None] = {}
        self._asking = asyncio.Lock()

    async def probe(self, command: tuple[str, ...]) -> Capabilities:
        """What that command can do. Callers at the same time share one probe."""
        key = (command, await asyncio.to_thread(_fingerprint, command[0]))
        task = self._known.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._known[key] = asyncio.ensure_future(self._ask(command))
        return await asyncio.shield(task)

    async def devices(
        self, command: tuple[str, ...], *, fresh: bool = False
    ) -> tuple[ListedDevice, ...] | None:
        """What its `--list-devices` names beside the CPU; None where it does not say.

        `fresh` asks again how much is free, of a program that named devices before.
        """
        key = (command, await asyncio.to_thread(_fingerprint, command[0]))
        async with self._asking:
            known = self._devices.get(key)
            if key not in self._devices or (fresh and known):
                found = read_devices(await run_program(*command, "--list-devices"))
                self._devices[key] = known if found is None else found  # once is no reason to forget them
            return self._devices[key]


def _fingerprint(path: str) -> tuple[object, ...]:
    """What changes when the program does; in a virtual environment its packages belong to it."""
    program = Path(path)
    parts = [program, *sorted(program.parent.parent.glob("lib/python3*/site-packages"))]
    return tuple(file_state(part) for part in parts)


async def _ask_help(command: tuple[str, ...]) -> Capabilities:
    version = read_version(await run_program(*command, "--version"))
    text = await run_program(*command, "--help")
    flags = read_flags(text or "")
    if len(flags) < 5:
        return Capabilities(
            None, version, f"{command[0]} --help could not be read: flags are not checked beforehand"
        )
    return Capabilities(flags, version)


def read_flags(help_text: str) -> frozenset[str]:
    """Every flag named at the start of a help text's lines: `-c,    --ctx-size N   ...`."""
    flags: set[str] = set()
    for line in help_text.splitlines():
        if not FLAG_LINE.match(line):
            continue
        rest = line.strip()
        while match := re.match(r"(--?[A-Za-z][\w.-]*)(,\s*)?", rest):
            flags.add(match[1])
            if not match[2]:
                break
            rest = rest[match.end() :]
    return frozenset(flags)


def read_version(text: str | None) -> str | None:
    """The build in `version: 11434 (abc1234)` or `version: 0.6.0 (build 11434, ...)` as "b11434".

    A build made outside of git calls itself 0: then the version's text is the answer.
    """
    line = re.search(r"^version:\s*(\S.*)$", text or "", re.MULTILINE)
    if line is None:
        return None
    build = re.match(r"(\d+)(?=\s|$)", line[1]) or re.search(r"\bbuild (\d+)", line[1])
    return f"b{build[1]}" if build and int(build[1]) else line[1].strip()[:80]
