"""The first page of 10,000 aliases and of 10,000 cached files over BodhiApp's API, in this process.

Run alone with `python -m benchmarks.bodhi`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from ostler.api.app import build_api
from ostler.api.services import Services
from ostler.app import build
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.settings_sources import load_settings
from ostler.models.records import NewModel, Source
from ostler.models.store import write_row
from ostler.models.tables import ModelRow
from tests.library.gguf_files import write_model

ITEMS = 10_000
REPOS = 1_000
REPEATS = 9
COMMIT = "a" * 40


def measure() -> dict[str, Any]:
    """Medians of the first page once everything was listed before; `files_first_s` reads every header."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> dict[str, Any]:
    async with _served(folder / "aliases") as (rooms, client):
        await _store(rooms)
        aliases = await _median(client, "/bodhi/v1/models")
    _fill(folder / "files")
    async with _served(folder / "files") as (_, client):
        begin = time.perf_counter()
        await client.get("/bodhi/v1/modelfiles")
        first = time.perf_counter() - begin
        files = await _median(client, "/bodhi/v1/modelfiles")
        automatic = await _median(client, "/bodhi/v1/models")
    return {
        "items": ITEMS,
        "aliases_page_s": aliases,
        "files_first_s": first,
        "files_page_s": files,
        "automatic_page_s": automatic,
    }


@asynccontextmanager
async def _served(folder: Path) -> AsyncIterator[tuple[Services, httpx2.AsyncClient]]:
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    flags = {"data_dir": folder, "hub_cache_dir": folder / "hub", "offline": True}
    ostler = build(load_settings(flags=flags, environ={}))
    async with ostler.running():
        transport = httpx2.ASGITransport(app=build_api(ostler.services))
        url = "http://127.0.0.1:11500"
        async with httpx2.AsyncClient(transport=transport, base_url=url, timeout=600) as client:
            yield ostler.services, client


async def _store(rooms: Services) -> None:
    """Aliases, written in one go as each of them would be made."""
    source = Source("hub", repo="org/repo", file="model.gguf", revision=COMMIT)
    new = NewModel(source, name="alias", engine="llamacpp", origin="bodhi", request_defaults={"top_p": 0.9})
    one = await rooms.models.preview(new, LOCAL_ADMIN)
    async with rooms.database.write() as session:
        for number in range(ITEMS):
            row = ModelRow()
            named = replace(
                one, name=f"alias-{number}", source=replace(source, repo=f"org/repo-{number % 97}")
            )
            write_row(row, named)
            session.add(row)
    await rooms.models.start()


def _fill(folder: Path) -> None:
    """A cache of repos with ten quantizations each, as Hugging Face's own client keeps it."""
    folder.mkdir()
    data = write_model(folder / "source.gguf", "Q8_0").read_bytes()
    for repo in range(REPOS):
        base = folder / "hub" / f"models--org--cached-{repo}"
        snapshot = base / "snapshots" / COMMIT
        for made in (base / "blobs", base / "refs", snapshot):
            made.mkdir(parents=True)
        (base / "refs" / "main").write_text(COMMIT)
        for number in range(ITEMS // REPOS):
            (base / "blobs" / f"{number}").write_bytes(data)
            (snapshot / f"model-{number}-Q4_{number}.gguf").symlink_to(f"../../blobs/{number}")


async def _median(client: httpx2.AsyncClient, path: str) -> float:
    times = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        answer = await client.get(path)
        times.append(time.perf_counter() - begin)
        assert answer.json()["total"] == ITEMS
    return statistics.median(times[1:])


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
