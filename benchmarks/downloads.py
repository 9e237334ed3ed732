"""How fast downloads are, against `hf download` from the same test hub in the same run.

Both are fresh processes that fetch the same repo (one large file and several smaller ones) over
loopback into an empty cache, in turns; the best round of each counts, since only the machine can
make a round slower. Ours is the worker process that the server starts, hashing included.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ostler.core.settings import Settings
from ostler.downloads.order import Order, OrderedFile
from ostler.downloads.placing import repo_folder
from ostler.downloads.plan import staging_folder
from ostler.hub.service import Hub
from ostler.hub.specs import HubSpec

CHECKOUT = Path(__file__).parents[1]
REPO = "bench/model-GGUF"
LARGE_MB = 256
SMALLER_MB = (16, 16, 16, 16)
ROUNDS = 3
TIMEOUT_S = 300


def measure() -> dict[str, Any]:
    """Bytes per second of both, and the ratio; the goal is at least 0.9."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as text:
        folder = Path(text)
        total = _make_repo(folder / "repo")
        with hub_process(f"{REPO}={folder / 'repo'}") as endpoint:
            order = _order(endpoint, folder / "ours")
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(_ours(order))
                theirs.append(_theirs(endpoint, folder / "theirs"))
    return {
        "bytes": total,
        "ostler_bytes_per_s": total / min(ours),
        "hf_download_bytes_per_s": total / min(theirs),
        "ratio": min(theirs) / min(ours),
    }


def _make_repo(folder: Path) -> int:
    folder.mkdir()
    block = os.urandom(1 << 20)
    for number, size_mb in enumerate((LARGE_MB, *SMALLER_MB)):
        with (folder / f"model-Q8_0-{number + 1:05}-of-{len(SMALLER_MB) + 1:05}.gguf").open("wb") as file:
            for index in range(size_mb):
                file.write(number.to_bytes(4, "big") + index.to_bytes(4, "big") + block[8:])
    return sum(path.stat().st_size for path in folder.iterdir())


@contextmanager
def hub_process(*repos: str) -> Iterator[str]:
    """The test hub as a process of its own, with these repos (`org/name=FOLDER`); its address."""
    command = [sys.executable, "-m", "tests.hub.server", *repos]
    hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    try:
        assert hub.stdout is not None
        yield hub.stdout.readline().strip()
    finally:
        hub.terminate()
        hub.wait()


def _order(endpoint: str, cache: Path) -> Order:
    settings = Settings(hf_endpoint=endpoint, hub_cache_dir=cache)
    hub = Hub(settings)
    found = asyncio.run(hub.resolve(HubSpec(REPO, "Q8_0")))
    files = [
        OrderedFile(f.path, hub.file_url(REPO, found.commit, f.path), f.size_bytes, f.etag, f.sha256)
        for f in found.files
    ]
    return Order(
        repo=REPO,
        commit=found.commit,
        revision=found.revision,
        primary=found.primary,
        files=tuple(files),
        endpoint=endpoint,
        repo_dir=str(repo_folder(cache, REPO)),
        staging_dir=str(staging_folder(cache, REPO)),
        connections=settings.download_connections,
    )


def _ours(order: Order) -> float:
    """Seconds of one worker process, from its start to its end."""
    shutil.rmtree(Path(order.repo_dir).parent, ignore_errors=True)
    begun = time.perf_counter()
    worker = subprocess.Popen(
        [sys.executable, "-m", "ostler.downloads.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker:  # stdin stays open until it has ended: its end would mean that nobody waits
        worker.stdin.write(json.dumps(order.to_json()) + "\n")
        worker.stdin.flush()
        last = worker.stdout.readlines()[-1]
        worker.wait(TIMEOUT_S)
    took_s = time.perf_counter() - begun
    if json.loads(last)["event"] != "done":
        raise RuntimeError(f"the download failed: {last}")
    return took_s


def _theirs(endpoint: str, home: Path) -> float:
    """Seconds of one `hf download`."""
    shutil.rmtree(home, ignore_errors=True)
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
    }
    begun = time.perf_counter()
    command = [str(Path(sys.executable).with_name("hf")), "download", REPO]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=TIMEOUT_S)
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
