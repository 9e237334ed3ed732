"""The list of 1,000 models over Cortex's API, in this process.

Run alone with `python -m benchmarks.cortex`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2

from ostler.api.app import build_api
from ostler.api.dialects.cortex.records import new_model_of
from ostler.app import build
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.settings_sources import load_settings

MODELS = 1_000
REPEATS = 5


def measure() -> dict[str, Any]:
    """`first_s` writes every item anew, as after a start of the server; `list_s` is the median after it."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> dict[str, Any]:
    models_dir = folder / "models"
    models_dir.mkdir()
    shutil.copy(str(resources.files("ostler") / "data" / "ostler-demo-Q8_0.gguf"), models_dir / "demo.gguf")
    flags = {"data_dir": folder, "hub_cache_dir": folder / "hub", "offline": True}
    ostler = build(load_settings(flags=flags, environ={}))
    async with ostler.running():
        for number in range(MODELS):
            new = new_model_of(_body(number), models_dir, "docker")
            await ostler.services.models.create(new, LOCAL_ADMIN)
        transport = httpx2.ASGITransport(app=build_api(ostler.services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:11500") as client:
            await client.get("/admin/models/1")  # whatever is loaded by the very first request
            first = await _timed(client)
            times = [await _timed(client) for _ in range(REPEATS)]
    return {"models": MODELS, "first_s": first, "list_s": statistics.median(times)}


def _body(number: int) -> dict[str, Any]:
    return {
        "mode": "offline",
        "engine_type": "llamacpp",
        "local_path": "demo.gguf",
        "served_model_name": f"model-{number}",
        "name": f"Model {number}",
        "context_size": 512,
        "ngl": 99,
        "temperature": 0.5,
        "custom_request_json": '{"min_p": 0.1}',
        "engine_startup_env_json": '[{"key": "A", "value": "b"}]',
    }


async def _timed(client: httpx2.AsyncClient) -> float:
    begin = time.perf_counter()
    answer = await client.get("/admin/models")
    passed = time.perf_counter() - begin
    assert len(answer.json()) == MODELS
    return passed


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
