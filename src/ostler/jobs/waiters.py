"""Those who wait for a job to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Waiters:
    """Futures by job id, done when that job ends."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    @contextmanager
    def one(self, job_id: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done once `tell` is called for this job."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(waiter)
        try:
            yield waiter
        finally:
            self._waiting[job_id].remove(waiter)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def tell(self, job_id: str) -> None:
        """The job has ended."""
        for waiter in self._waiting.get(job_id, []):
            if not waiter.done():
                waiter.set_result(None)
