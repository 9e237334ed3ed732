"""What is pulled into llama.cpp's cache is found there by the real llama-server, without a network."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from ostler.core.principals import LOCAL_ADMIN
from ostler.core.states import JobState
from tests.downloads.conftest import MakeBed, make_bed
from tests.hub.server import HubServer, folder_files

__all__ = ["make_bed"]  # a fixture of the downloads' tests

pytestmark = pytest.mark.real


async def serves(program: str, repo: str, environment: Mapping[str, str]) -> int:
    """Start it offline with `-hf` and wait until it says ready; the number of the model's parameters."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "HF_HOME")}
    process = await asyncio.create_subprocess_exec(
        *(program, "--offline", "-hf", repo, "--port", str(port), "-c", "256", "--no-mmproj"),
        env={**kept, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    said = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(60):
            while True:
                if process.returncode is not None:
                    raise AssertionError((await said)[1].decode(errors="replace")[-2000:])
                try:
                    answer = await asyncio.to_thread(read, f"http://127.0.0.1:{port}/v1/models")
                except (urllib.error.URLError, ConnectionError):
                    await asyncio.sleep(0.1)
                    continue
                return int(answer["data"][0]["meta"]["n_params"])
    finally:
        if process.returncode is None:
            process.kill()
        await said


def read(url: str) -> dict[str, list[dict[str, dict[str, int]]]]:
    """The JSON at an address."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, list[dict[str, dict[str, int]]]] = json.loads(answer.read())
    return found


@pytest.mark.parametrize("tag", ["Q8_0", "latest"])
async def test_llama_server_finds_what_was_pulled(
    make_bed: MakeBed,
    hub_server: HubServer,
    llama_server: str,
    demo_model: Path,
    tmp_path: Path,
    tag: str,
) -> None:
    files: dict[str, bytes | Path] = {"tiny-Q8_0.gguf": demo_model, "preset.ini": b"[*]\nctx-size = 256\n"}
    hub_server.add_repo("org/tiny-GGUF", files)
    bed = await make_bed(llama_cache_dir=tmp_path / "flat")
    job = await bed.downloads.pull_tag("org/tiny-GGUF", tag, principal=LOCAL_ADMIN)
    assert (await bed.jobs.wait(job.id, 60)).state is JobState.SUCCEEDED
    asked = "org/tiny-GGUF" + (f":{tag}" if tag != "latest" else "")
    here = {"HOME": str(tmp_path)}
    in_flat = await serves(llama_server, asked, {**here, "LLAMA_CACHE": str(tmp_path / "flat")})
    in_hub = await serves(llama_server, asked, {**here, "HF_HUB_CACHE": str(bed.cache)})
    assert in_flat == in_hub > 1_000_000


async def test_llama_server_finds_all_parts_of_a_split_model(
    make_bed: MakeBed, hub_server: HubServer, llama_server: str, shared: Path, tmp_path: Path
) -> None:
    hub_server.add_repo("org/split-GGUF", folder_files(shared / "demo-model" / "split"))
    bed = await make_bed(llama_cache_dir=tmp_path / "flat")
    job = await bed.downloads.pull_tag("org/split-GGUF", "F16", principal=LOCAL_ADMIN)
    over = await bed.jobs.wait(job.id, 60)
    assert over.state is JobState.SUCCEEDED and over.result is not None, over.error
    flat = {"HOME": str(tmp_path), "LLAMA_CACHE": str(tmp_path / "flat")}
    assert await serves(llama_server, "org/split-GGUF:F16", flat) > 1_000_000
