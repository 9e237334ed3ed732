"""Fixtures around the test hub (a pytest plugin; tests/conftest.py loads it).

`hub_server`: a running hub on loopback, fresh for every test and gone after it.

    async def test_...(hub_server, tmp_path):
        repo = hub_server.add_repo(
            "org/tiny-GGUF",
            {"tiny-Q8_0.gguf": DEMO_MODEL, "README.md": b"# Tiny"},     # bytes or a Path
            gated="manual", private=False, token="hf_good",             # all optional
        )
        settings = Settings(hf_endpoint=hub_server.endpoint, hub_cache_dir=tmp_path / "hub")

        repo.head                                    # the commit that main points to
        repo.commit({"tiny-Q8_0.gguf": b"newer"})    # moves main, returns the new commit
        repo.blob("tiny-Q8_0.gguf").sha256           # what a client must end up with
        hub_server.rename("org/tiny-GGUF", "org/small-GGUF")

        # Faults: cut, status, wrong_bytes, drip, stall, no_ranges, edit, redirect, run (see hub/faults.py).
        # Large files are fetched from the other host, where their path is /cdn/<sha256>/<path in the repo>.
        fault = hub_server.faults.cut("*/tiny-Q8_0.gguf", host="cdn", after_bytes=1000, nth=1, times=2)
        hub_server.faults.status("*/tiny-Q8_0.gguf", status=429, retry_after=1)
        hub_server.faults.run("*/revision/main", lambda: repo.commit({...}))   # main moves
        stalled = hub_server.faults.stall("*.gguf", host="cdn", after_bytes=4096)
        stalled.reached.wait(10); stalled.release()

        # What the hub has seen.
        hub_server.requests_for("/cdn/*", method="GET")[0].range   # .token, .headers, .status, .bytes_sent
        hub_server.wait_for_request("/cdn/*", count=2)

`hub_environment`: environment variables with which `huggingface_hub` and `hf` in a child process use
that hub, with a home of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import HubServer

# Without this, huggingface_hub asks huggingface.co for a list of coding agents to name in its
# User-Agent. It reads the variable once, at its import, so it has to be set before any test runs.
os.environ.setdefault("DO_NOT_TRACK", "1")


@pytest.fixture
def hub_server() -> Iterator[HubServer]:
    """A running test hub without repos."""
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub_environment(hub_server: HubServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a child process that shall use `hub_server`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_ENDPOINT": hub_server.endpoint,
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
