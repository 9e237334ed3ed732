"""A real llama-server: the option table against its `--help`, and the same answers as the built-in one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ostler.core.launch import HOST_SLOT, PORT_SLOT
from ostler.engines.base import Health, HealthAnswer, LaunchRequest
from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.llamacpp_options import TABLE

pytestmark = pytest.mark.real


async def test_the_option_table_agrees_with_the_real_help(llama_server: str) -> None:
    capabilities = await LlamaCpp(llama_server).capabilities((llama_server,))
    assert capabilities.flags and capabilities.warning is None and capabilities.version
    known = TABLE.flags()
    known |= {flag for old in TABLE.renamed for flag in (*old.flags, *old.negative_flags)}
    known |= {flag for gone in TABLE.gone for flag in gone.flags}
    assert not TABLE.flags() - capabilities.flags, "flags of the table that this build does not have"
    assert not capabilities.flags - known, "flags of this build that the table does not have"


async def test_a_launch_spec_starts_it_and_its_health_is_read(llama_server: str, demo_model: Path) -> None:
    engine = LlamaCpp(llama_server)
    request = LaunchRequest(1, "demo", demo_model, options={"context_length": 512, "parallel_slots": 1})
    assert await engine.check(request) == []
    spec = engine.launch_spec(request)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {HOST_SLOT: "127.0.0.1", PORT_SLOT: str(port)}
    process = await asyncio.create_subprocess_exec(
        *spec.command,
        *(places.get(argument, argument) for argument in spec.args),
        env={**os.environ, "LLAMA_API_KEY": "a-key"},
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            while engine.read_health(await _probe(port)) is not Health.READY:
                assert process.returncode is None
                await asyncio.sleep(0.02)
        models = await asyncio.to_thread(_get, port, "/v1/models")
        assert json.loads(models.body)["data"][0]["id"] == "demo"
        assert "llamacpp:prompt_tokens_total" in (await asyncio.to_thread(_get, port, "/metrics")).body
    finally:
        process.terminate()
        await process.wait()


async def _probe(port: int) -> HealthAnswer:
    return await asyncio.to_thread(_get, port, "/health")


def _get(port: int, path: str) -> HealthAnswer:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": "Bearer a-key"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return HealthAnswer(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        return HealthAnswer(error.code, error.read().decode())
    except OSError:
        return HealthAnswer(None)
