"""What a keeper can be told: start attempts that many share, and stop orders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from ostler.core.states import DesiredState
from ostler.instances.seating import Way
from ostler.instances.views import StartCause


def _future() -> asyncio.Future[None]:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(_heard)  # it may be that nobody waits any more
    return future


def _heard(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def done() -> asyncio.Future[None]:
    """A future of what is so already."""
    future = _future()
    future.set_result(None)
    return future


def settle(future: asyncio.Future[None], error: Exception | None = None) -> None:
    """Tell all who wait. Only the first call counts."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


@dataclass
class Attempt:
    """A start that is under way or about to be. All who want the model wait for `done`.

    `ways` are the ways to place it, once they are known.
    `not_before` is monotonic; `is_restart` marks one that follows a fault and may be repeated.
    `tries` counts launches that were lost to a taken port. `placed` is set once the scheduler has decided.
    `is_batch`: nobody but batch work waits for it.
    `is_new_wish`: with it the model became one that should run; if it is refused, that is taken back.
    `awaits_files`: not where only its files are not here yet.
    """

    cause: StartCause
    actor: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    not_before: float = 0.0
    is_restart: bool = False
    may_evict: bool = True
    is_batch: bool = False
    is_new_wish: bool = False
    awaits_files: bool = False
    tries: int = 0
    ways: Sequence[Way] = ()
    placed: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Future[None] = field(default_factory=_future)

    def again(self, not_before: float) -> Attempt:
        """The same once more, for nobody who waits now."""
        return Attempt(self.cause, self.actor, self.overrides, not_before, self.is_restart, self.may_evict)


class GuestsThen(IntEnum):
    """What a stop of an engine means for other models that share it.

    GO_ON: one of them takes it over. WAIT: it is started anew, and they are served again then. LEAVE: it
    ends for them too.
    """

    GO_ON = 0
    WAIT = 1
    LEAVE = 2


@dataclass
class StopOrder:
    """A stop that is under way or about to be.

    `reason` is one sentence for the history, `kind` the kind of the event ("instance.evicted", ...).
    `now`: do not wait for requests in flight. `desired` and `ignored` are stored with it, where given.
    `cuts_requests` is False where those in flight are waited for however long they take.
    """

    reason: str
    actor: str
    now: bool = False
    kind: str = "instance.stopping"
    desired: DesiredState | None = None
    ignored: frozenset[str] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    cuts_requests: bool = True
    guests: GuestsThen = GuestsThen.GO_ON
    done: asyncio.Future[None] = field(default_factory=_future)

    def copy(self) -> StopOrder:
        """The same order for another model, with a future of its own."""
        return replace(self, done=_future())
