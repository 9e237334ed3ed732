"""The library's speed: one large header against `gguf.GGUFReader`, a listing of 2,000 file sets, and
looking into a folder of 500 others.

Run alone with `python -m benchmarks.library`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.migrate import upgrade
from ostler.core.settings import Settings
from ostler.library.gguf import read_gguf_header
from ostler.library.service import Library
from tests.library.gguf_files import model_metadata, model_tensors, put_in_hub_cache, write_gguf, write_model

VOCABULARY_TOKENS = 150_000
FILE_SETS = 2_000
FOLDERS = 500
REPEATS = 5


def inspect_ratio(repeats: int = REPEATS) -> dict[str, float]:
    """Seconds to read a header with 150,000 tokens and as many merges; `ratio` is ours over theirs."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as folder:
        metadata = model_metadata(n_tokens=VOCABULARY_TOKENS)
        path = write_gguf(Path(folder) / "large.gguf", metadata, model_tensors("Q8_0"))
        ours = _median(lambda: read_gguf_header(path), repeats)
        theirs = _median(lambda: gguf.GGUFReader(path), max(1, repeats // 2))
    return {
        "tokens": VOCABULARY_TOKENS,
        "ostler_s": ours,
        "gguf_reader_s": theirs,
        "ratio": ours / theirs,
        "times_faster": theirs / ours,
    }


def list_2000() -> dict[str, float]:
    """Seconds to list 2,000 file sets: half in a models folder, half as repos of a hub cache.

    `cold_s` knows nothing, `warm_s` is the same server's next listing (the median of several),
    `restart_s` the first one of a new server over the same database. The `cpu` times tell a slow
    library from a busy machine.
    """
    return asyncio.run(_list_2000())


async def _list_2000() -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="ostler-bench-"))
    try:
        await asyncio.to_thread(_fill, folder)
        settings = Settings(
            data_dir=folder / "data", models_dir=folder / "models", hub_cache_dir=folder / "hub"
        )
        settings.data_dir.mkdir()
        database = Database(settings.effective_database_url)
        await upgrade(database)
        library = await _library(database, settings)
        begin = time.process_time()
        cold, total = await _timed(library)
        cold_cpu = time.process_time() - begin
        begin = time.process_time()
        warm = [(await _timed(library))[0] for _ in range(REPEATS)]
        warm_cpu = (time.process_time() - begin) / REPEATS
        restarted, _ = await _timed(await _library(database, settings))
        await database.close()
    finally:
        shutil.rmtree(folder)
    return {
        "file_sets": total,
        "cold_s": cold,
        "cold_cpu_s": cold_cpu,
        "warm_s": statistics.median(warm),
        "warm_cpu_s": warm_cpu,
        "restart_s": restarted,
    }


def folders_500() -> dict[str, float]:
    """Seconds to name the 500 folders of a folder, and to look into all of them at once, knowing nothing."""
    return asyncio.run(_folders_500())


async def _folders_500() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        folder = Path(name)
        settings = Settings(
            data_dir=folder / "data", models_dir=folder / "models", hub_cache_dir=folder / "hub"
        )
        settings.data_dir.mkdir()
        names = [f"org-{number:03}/model-{number:03}-Q8_0.gguf" for number in range(FOLDERS)]
        await asyncio.to_thread(write_models, folder / "models", names)
        database = Database(settings.effective_database_url)
        await upgrade(database)
        library = await _library(database, settings)
        begin = time.perf_counter()
        named = await library.subfolders(settings.effective_models_dir)
        names_s = time.perf_counter() - begin
        begin = time.perf_counter()
        view = await library.look_into(settings.effective_models_dir)
        look_s = time.perf_counter() - begin
        await database.close()
    return {"folders": len(named), "models": len(view.file_sets), "names_s": names_s, "look_s": look_s}


def write_models(folder: Path, names: Sequence[str]) -> None:
    """Models whose header is read and whose weights are a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    content = write_model(folder / "source.gguf", "Q8_0").read_bytes()
    (folder / "source.gguf").unlink()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[: 64 * 1024])
        os.truncate(path, len(content))


def _fill(folder: Path) -> None:
    names = [f"model-{number:04}-Q8_0.gguf" for number in range(FILE_SETS // 2)]
    write_models(folder / "models", [f"org-{number % 50}/{name}" for number, name in enumerate(names)])
    write_models(folder / "blobs", names)
    for number, name in enumerate(names):
        put_in_hub_cache(
            folder / "hub", f"org/m-{number:04}", f"{number:040x}", {name: folder / "blobs" / name}
        )


async def _library(database: Database, settings: Settings) -> Library:
    clock = Clock()
    library = Library(database, EventLog(database, clock), clock, settings, "bench")
    await library.start()
    return library


async def _timed(library: Library) -> tuple[float, int]:
    begin = time.perf_counter()
    page = await library.list(limit=1_000)
    return time.perf_counter() - begin, page.total


def _median(act: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure() -> dict[str, dict[str, float]]:
    """Everything in here, by name."""
    return {"inspect": inspect_ratio(), "list_2000": list_2000(), "folders_500": folders_500()}


def main() -> None:
    """Measure and print."""
    print(json.dumps(measure(), indent=2))


if __name__ == "__main__":
    main()
