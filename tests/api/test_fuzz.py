"""Requests made up from /openapi.json never end in a failure of ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from ostler.app import Ostler
from tests.server import running_ostler

pytestmark = pytest.mark.real

STREAMS = ("/events", "/logs")
STATUSES_OF_OURS = {501, 503, 507}
EXAMPLES = 6


class _Server(threading.Thread):
    """A whole server in a thread of its own, as schemathesis is synchronous."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(daemon=True)
        self.data_dir = data_dir
        self.url = ""
        self.ostler: Ostler | None = None
        self.answering = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()

    def run(self) -> None:
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with running_ostler(self.data_dir) as running:
            self.url, self.ostler = running.url, running.ostler
            self.answering.set()
            await self.stop.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    server = _Server(tmp_path_factory.mktemp("fuzzed") / "data")
    server.start()
    assert server.answering.wait(30)
    yield server
    server.loop.call_soon_threadsafe(server.stop.set)
    server.join(30)


def test_no_request_made_from_the_document_ends_in_a_failure_of_ours(server: _Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        if operation.path.endswith(STREAMS):
            continue

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            nonlocal tried
            tried += 1
            answer = case.call(timeout=20)
            told = f"{case.method} {case.formatted_path} {case.query} {case.body}: {answer.text}"
            assert answer.status_code < 500 or answer.status_code in STATUSES_OF_OURS, told

        check()
    assert tried > 100
