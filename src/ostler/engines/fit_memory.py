"""What llama.cpp itself says that a model will take, asked in a child process that loads no weights.

The child (`ostler-llama-server ... --fit-memory`) prints one JSON object:

    {"unchanged": true, "step_bytes": 1048576,
     "devices": [{"name": "Host", "weights_bytes": 0, "kv_cache_bytes": 0, "compute_bytes": 0}]}

The engine counts in whole MiB and rounds down, so each number is up to `step_bytes` too small.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.engines.asking import run_program

log = logging.getLogger(__name__)

MAX_KEPT = 64
MAX_BYTES = 1 << 50
PARTS = ("weights_bytes", "kv_cache_bytes", "compute_bytes")
HOST = "Host"
FLAG = "--fit-memory"


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """Bytes by the engine's own name of the device ("Host", "CUDA0") and by part (`PARTS`).

    Numbers are whole steps, rounded down. `unchanged`: the engine would start with just these settings;
    else it would choose others that fit better, and the numbers are of what was asked.
    """

    devices: Mapping[str, Mapping[str, int]]
    unchanged: bool
    step_bytes: int


class Asker:
    """Asks once for each key and keeps the last answers. A program that fails is not asked again."""

    def __init__(self) -> None:
        self._known: OrderedDict[object, EngineMemory | None] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    def known(self, key: object) -> EngineMemory | None:
        """An answer that was given before."""
        return self._known.get(key)

    async def ask(self, spec: LaunchSpec, key: object) -> EngineMemory | None:
        """The engine's answer for this launch; None where it gives none that can be believed."""
        async with self._one_at_a_time:
            if key not in self._known:
                self._known[key] = read_answer(await _run(spec))
                while len(self._known) > MAX_KEPT:
                    self._known.popitem(last=False)
            return self._known[key]


def read_answer(text: str | None) -> EngineMemory | None:
    """The answer in what the child printed; None, and a line in the log, for anything else."""
    if text is None:
        return None
    try:
        told = json.loads(text)
        devices = {str(one["name"]): {part: _bytes(one[part]) for part in PARTS} for one in told["devices"]}
        if HOST not in devices:
            raise ValueError("the host is missing")
        return EngineMemory(devices, told["unchanged"] is True, _bytes(told["step_bytes"]))
    except (ValueError, TypeError, KeyError) as error:
        log.warning("what the engine says of its memory cannot be used (%r): %.200s", error, text)
        return None


def _bytes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_BYTES:
        raise ValueError(f"{value!r} is not a number of bytes")
    return value


async def _run(spec: LaunchSpec) -> str | None:
    """What the child prints; None where it fails, hangs or is not there."""
    slots = {HOST_SLOT: "127.0.0.1", PORT_SLOT: "0"}
    command = [*spec.command, *(slots.get(part, part) for part in spec.args), FLAG]
    hidden = ("LLAMA_", "OSTLER_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    return await run_program(*command, env={**environment, **spec.env}, with_errors=False)
