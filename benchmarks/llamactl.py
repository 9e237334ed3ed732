"""llamactl's models: a queue of 50 downloads, and lists of 10,000 cached files.

The queue runs in a server process of its own against the test hub in another; `/health` is asked
before and meanwhile, so that the ratio tells what downloads do to a server on this machine.
Run alone with `python -m benchmarks.llamactl`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.downloads import hub_process
from benchmarks.library import write_models
from ostler.api.app import build_api
from ostler.app import build
from ostler.core.settings_sources import load_settings
from ostler.library.layouts.llama_cache import manifest_name
from tests.serving import ServerProcess

DOWNLOADS = 50
AT_ONCE = 4
REPO_BYTES = 2 * 1024 * 1024
FILES = 10_000
REPEATS = 5
ASKED_EVERY_S = 0.01
CALM_REQUESTS = 300
MODELS = "/api/v1/backends/llama-cpp/models"


def measure() -> dict[str, Any]:
    """Everything in here, by name."""
    return {"queue": queue_50(), "list_10000": list_10000()}


def queue_50() -> dict[str, float]:
    """Milliseconds that `/health` takes, and how fair the queue is.

    `most_overtaken` is by how many places a download ended later than it was asked for: with four at
    once up to three that came later may end before one.
    """
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as text:
        folder = Path(text)
        with _hub(folder / "repos") as endpoint:
            environment = {
                "HOME": str(folder),
                "OSTLER_OFFLINE": "0",
                "OSTLER_DOWNLOAD_JOBS": str(AT_ONCE),
                "OSTLER_LLAMA_CACHE_DIR": str(folder / "flat"),
                "OSTLER_DISK_RESERVE_BYTES": "0",
                "HF_ENDPOINT": endpoint,
            }
            (folder / "data").mkdir()
            server = ServerProcess(folder / "data", environment=environment).start()
            try:
                return _queue(server.url)
            finally:
                server.end_everything()


def _queue(url: str) -> dict[str, float]:
    with httpx2.Client(base_url=url, timeout=60) as client:
        calm = [_health(client) for _ in range(CALM_REQUESTS)]
        begin = time.perf_counter()
        asked = [
            client.post(f"{MODELS}/download", json={"repo": f"org/m-{number:02}-GGUF"}).json()["job_id"]
            for number in range(DOWNLOADS)
        ]
        asking_s = time.perf_counter() - begin
        busy: list[float] = []
        ended: dict[str, int] = {}
        while len(ended) < DOWNLOADS:
            busy += [_health(client) for _ in range(20)]
            for job in reversed(client.get(f"{MODELS}/jobs").json()["jobs"]):
                if job["status"] not in ("queued", "downloading"):
                    assert job["status"] == "completed", job
                    ended.setdefault(job["id"], len(ended))
        took_s = time.perf_counter() - begin
    overtaken = max(ended[job] - place for place, job in enumerate(asked))
    return {
        "downloads": DOWNLOADS,
        "asking_s": asking_s,
        "took_s": took_s,
        "most_overtaken": overtaken,
        "calm_p50_ms": statistics.median(calm),
        "calm_p99_ms": _p99(calm),
        "busy_p50_ms": statistics.median(busy),
        "busy_p99_ms": _p99(busy),
        "busy_to_calm_p99": _p99(busy) / _p99(calm),
        "asked": len(busy),
    }


def _health(client: httpx2.Client) -> float:
    """Milliseconds of one question, after a little pause."""
    time.sleep(ASKED_EVERY_S)
    begin = time.perf_counter()
    client.get("/health").raise_for_status()
    return (time.perf_counter() - begin) * 1_000


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


@contextmanager
def _hub(folder: Path) -> Iterator[str]:
    """The test hub with 50 repos, as a process of its own; its address."""
    named = []
    for number in range(DOWNLOADS):
        repo = folder / f"m-{number:02}"
        repo.mkdir(parents=True)
        (repo / f"m-{number:02}-Q4_K_M.gguf").write_bytes(os.urandom(REPO_BYTES))
        named.append(f"org/m-{number:02}-GGUF={repo}")
    with hub_process(*named) as address:
        yield address


def list_10000() -> dict[str, float]:
    """Seconds to list a flat cache of 10,000 models: the first page of 50 over the native API, and the
    whole list over llamactl's, which has no pages. `first_s` read every header.
    """
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        return asyncio.run(_list_10000(Path(folder)))


async def _list_10000(folder: Path) -> dict[str, float]:
    flat = folder / "flat"
    await asyncio.to_thread(_fill, flat)
    flags = {"data_dir": folder / "data", "hub_cache_dir": folder / "hub", "llama_cache_dir": flat}
    (folder / "data").mkdir()
    ostler = build(load_settings(flags={**flags, "offline": True}, environ={}))
    async with ostler.running():
        transport = httpx2.ASGITransport(app=build_api(ostler.services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:11500") as client:
            first = await _timed(client, "/ostler/v1/files?limit=50")
            pages = [await _timed(client, "/ostler/v1/files?limit=50") for _ in range(REPEATS)]
            whole = [await _timed(client, MODELS) for _ in range(REPEATS)]
    return {
        "files": FILES,
        "first_s": first,
        "page_s": statistics.median(pages),
        "llamactl_s": statistics.median(whole),
    }


def _fill(flat: Path) -> None:
    write_models(flat, [f"org_m-{number:05}_m-Q8_0.gguf" for number in range(FILES)])
    for number in range(FILES):
        name = manifest_name(f"org/m-{number:05}", "Q8_0")
        (flat / name).write_text(json.dumps({"ggufFile": {"rfilename": "m-Q8_0.gguf"}}))


async def _timed(client: httpx2.AsyncClient, path: str) -> float:
    begin = time.perf_counter()
    (await client.get(path, timeout=300)).raise_for_status()
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
