"""Asking an engine how it is."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError

from ostler.engines.base import Engine, Health, HealthAnswer

BODY_LIMIT = 4096
LIST_LIMIT = 256 * 1024
FIRST_WAIT_S, LONGEST_WAIT_S, WAIT_SHARE = 0.01, 0.25, 0.1


class HealthProbe:
    """Health probes over one HTTP client: no proxy, no redirect, a bounded answer."""

    def __init__(self) -> None:
        builder = ClientBuilder().no_proxy().follow_redirects(False).error_for_status(False)
        self._client = builder.pool_idle_timeout(timedelta(seconds=1)).build()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, engine: Engine, url: str, *, timeout_s: float, was_ready: bool) -> Health | None:
        """One probe; None when no answer came in time."""
        try:
            answer = await self._answer(url + engine.health_path, timeout_s)
        except TimeoutError:
            return None
        return engine.read_health(answer, was_ready=was_ready)

    async def until_settled(self, engine: Engine, url: str, *, timeout_s: float) -> Health:
        """Probe until the engine says ready or dead.

        The waits between probes are a tenth of the time passed, from 10 ms up to 250 ms: so a start
        takes at most a tenth longer than the engine itself.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            health = await self.ask(engine, url, timeout_s=timeout_s, was_ready=False)
            if health is Health.READY or health is Health.DEAD:
                return health
            passed = loop.time() - began
            await asyncio.sleep(min(LONGEST_WAIT_S, max(FIRST_WAIT_S, passed * WAIT_SHARE)))

    async def context(self, engine: Engine, url: str, key: str, *, timeout_s: float) -> int | None:
        """The tokens that one request to it may have, prompt and answer together; None where not known."""
        try:
            answer = await self._answer(url + engine.models_path, timeout_s, key=key, limit=LIST_LIMIT)
        except TimeoutError:
            return None
        return engine.read_context(answer.body) if answer.status == 200 else None

    async def _answer(
        self, url: str, timeout_s: float, *, key: str | None = None, limit: int = BODY_LIMIT
    ) -> HealthAnswer:
        request = self._client.get(url).timeout(timedelta(seconds=timeout_s))
        if key is not None:
            request = request.bearer_auth(key)
        try:
            async with request.streamed_read_buffer_limit(limit).build_streamed() as response:
                body = await response.body_reader.read(limit)
                return HealthAnswer(response.status, bytes(body or b"").decode(errors="replace"))
        except RequestTimeoutError as error:
            raise TimeoutError from error
        except PyreqwestError:
            return HealthAnswer(None)
