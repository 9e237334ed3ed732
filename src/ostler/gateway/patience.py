"""Looking after clients that neither send their body nor take their answer, nor go away.

A timeout around every read and write would cost each chunk more than sending it. One task looks at
all exchanges instead, now and then: who owes something and did nothing since the last looks is let go.
"""

from __future__ import annotations

import asyncio

from ostler.gateway.exchange import Exchange

LOOK_EVERY_S = 15.0
LOOKS = 4
"""An exchange that did nothing over so many looks in a row is given up: after 60 to 75 s."""


class Patience:
    """Every exchange now in the gateway, and the task that watches them."""

    def __init__(self, look_every_s: float = LOOK_EVERY_S) -> None:
        self.exchanges: set[Exchange] = set()
        self._look_every_s = look_every_s
        self._seen: dict[Exchange, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="gateway patience")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def look(self) -> None:
        """Give up those that have been idle for too many looks, by cancelling their tasks."""
        seen: dict[Exchange, tuple[int, int]] = {}
        for exchange in self.exchanges:
            if not exchange.on_client:
                continue
            turns, looks = self._seen.get(exchange, (exchange.turns, 0))
            looks = looks + 1 if turns == exchange.turns else 1
            if looks > LOOKS and exchange.task is not None:
                exchange.gave_up = True
                exchange.task.cancel()
            seen[exchange] = (exchange.turns, looks)
        self._seen = seen

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            self.look()
