"""Leases: the right to send one request to a running engine.

This is the gateway's hot path: taking one is a dictionary look-up and a counter. Everything runs
on the event loop's thread, so a check and what follows from it cannot be torn apart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ostler.instances.keep_alive import KeepAlive


class _Time(Protocol):
    def monotonic(self) -> float: ...


class Endpoint:
    """One running engine as requests see it. `last_used` is monotonic: the end of the last request that used
    it, rather than only looked at it.

    `served_name` is what the engine calls its model in answers, None where that is what was asked for.
    `keep_alive` is the last wish of a client how long it should stay, `context_length` the tokens that one
    request may have (None where the engine does not say).
    """

    __slots__ = (
        "_on_broken",
        "_on_release",
        "_time",
        "api_key",
        "base_url",
        "closed",
        "context_length",
        "engine",
        "in_flight",
        "instance_id",
        "keep_alive",
        "last_used",
        "limit",
        "served_name",
    )

    def __init__(
        self,
        instance_id: int,
        base_url: str,
        api_key: str,
        *,
        engine: str,
        served_name: str | None = None,
        time: _Time,
        limit: int | None,
        on_release: Callable[[], None],
        on_broken: Callable[[], None],
    ) -> None:
        self.instance_id = instance_id
        self.base_url = base_url
        self.api_key = api_key
        self.engine = engine
        self.served_name = served_name
        self.limit = limit
        self.in_flight = 0
        self.closed = False
        self.keep_alive: KeepAlive | None = None
        self.context_length: int | None = None
        self.last_used = time.monotonic()
        self._time = time
        self._on_release = on_release
        self._on_broken = on_broken

    def lease(self) -> Lease | None:
        """One more request in flight, None when it is closed (stopping) or at its limit."""
        if self.closed or (self.limit is not None and self.in_flight >= self.limit):
            return None
        self.in_flight += 1
        return Lease(self)

    def give_back(self, broken: bool, is_use: bool = True) -> None:
        """One request less; called by the lease."""
        self.in_flight -= 1
        if is_use:
            self.last_used = self._time.monotonic()
        self._on_release()
        if broken:
            self._on_broken()


class Lease:
    """One request in flight. Send it to `base_url` with `api_key`, then release it, always."""

    __slots__ = ("_endpoint", "_open", "api_key", "base_url", "engine", "instance_id", "served_name")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._open = True
        self.instance_id = endpoint.instance_id
        self.base_url = endpoint.base_url
        self.api_key = endpoint.api_key
        self.engine = endpoint.engine
        self.served_name = endpoint.served_name

    def keep_alive(self, wish: KeepAlive) -> None:
        """How long the client wants the model to stay after this request; holds until the next wish.

        Only models that a request started heed it, within their policy (`KeepAlive.within`).
        """
        if self._open:
            self._endpoint.keep_alive = wish

    def release(self, *, broken: bool = False, is_use: bool = True) -> None:
        """The request is over. `broken`: the engine did not answer, so it is looked at at once.

        `is_use`: it used the model; one that only looked how it is leaves it as idle as it was. A second
        release does nothing.
        """
        if self._open:
            self._open = False
            self._endpoint.give_back(broken, is_use)


class WaitingLine:
    """Requests that wait for another to end, first come first served."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when woken: look again then, it may not be for you."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.wake_one()  # woken and cancelled at once: the turn goes to the next
            raise
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def wake_one(self) -> None:
        """One place is free."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake_all(self) -> None:
        """Everything has changed."""
        while self._waiting:
            self.wake_one()


class Routes:
    """The running engines of each model. A model may come to have several: the least busy is taken."""

    def __init__(self) -> None:
        self._by_model: dict[int, list[Endpoint]] = {}

    def try_lease(self, model_id: int) -> Lease | None:
        """A lease if an engine of this model takes requests now."""
        endpoints = self._by_model.get(model_id)
        if endpoints is None:
            return None
        if len(endpoints) == 1:
            return endpoints[0].lease()
        for endpoint in sorted(endpoints, key=lambda e: e.in_flight):
            if (lease := endpoint.lease()) is not None:
                return lease
        return None

    def publish(self, model_id: int, endpoint: Endpoint) -> None:
        """From now on requests may go there."""
        self._by_model.setdefault(model_id, []).append(endpoint)

    def withdraw(self, model_id: int, endpoint: Endpoint) -> None:
        """No new requests from now on; those in flight go on."""
        endpoint.closed = True
        left = [e for e in self._by_model.get(model_id, ()) if e is not endpoint]
        if left:
            self._by_model[model_id] = left
        else:
            self._by_model.pop(model_id, None)
