"""The estimate of memory, against what the engine itself says that it allocates."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from ostler.fit.estimate import estimate
from ostler.library.facts import ModelFacts
from ostler.library.loose import inspect_loose

MIB = 1024 * 1024


async def said_by_the_engine(model: Path, *flags: str) -> dict[str, float]:
    """MiB of model, keys and values, as the engine logs them while it loads."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "ostler.engines.llama_server", "--model", str(model), "--port", port]
    engine = await asyncio.create_subprocess_exec(
        *command, "-lv", "4", *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert engine.stdout is not None
    said: dict[str, float] = {}
    async with asyncio.timeout(30):
        async for line in engine.stdout:
            text = line.decode(errors="replace")
            for name, pattern in (
                ("weights", r"model buffer size =\s+([\d.]+) MiB"),
                ("kv", r"llama_kv_cache: size =\s+([\d.]+) MiB"),
            ):
                if found := re.search(pattern, text):
                    said[name] = float(found[1])
            if len(said) == 2:
                break
    engine.kill()
    await engine.wait()
    return said


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, ()),
        ({"context_length": 512}, ("-c", "512")),
        ({"kv_cache_type_k": "q8_0"}, ("-ctk", "q8_0")),
        (
            {"kv_cache_type": "q8_0", "context_length": 768},
            ("-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on", "-c", "768"),
        ),
    ],
)
async def test_weights_and_cache_agree_with_the_engine(
    demo_model: Path, options: dict[str, Any], flags: tuple[str, ...]
) -> None:
    facts = inspect_loose(demo_model).facts
    assert facts is not None
    needs = estimate(facts, options)
    said = await said_by_the_engine(demo_model, *flags)
    assert needs.kv_cache_bytes is not None
    assert needs.weights_bytes / MIB == pytest.approx(said["weights"], abs=0.01)
    assert needs.kv_cache_bytes / MIB == pytest.approx(said["kv"], abs=0.01)


def test_what_the_header_does_not_say_is_not_made_up(demo_model: Path) -> None:
    facts = inspect_loose(demo_model).facts
    assert facts is not None
    unknown = ModelFacts.from_json({**facts.to_json(), "n_heads": None, "n_kv_heads": None})
    needs = estimate(unknown, {})
    assert needs.kv_cache_bytes is None
    assert needs.total_bytes == needs.weights_bytes + (needs.compute_bytes or 0)
