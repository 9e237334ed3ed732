"""The keeper: owner of one model's instance.

Others ask for outcomes here and wait for the future that they get; nobody else changes anything. The
steps that follow are taken by one task, in `life.py`; what is known is in `standing.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ostler.core.states import InstanceState
from ostler.instances import orders
from ostler.instances.errors import ShuttingDown, StartCancelled
from ostler.instances.life import Life
from ostler.instances.orders import Attempt, GuestsThen, StopOrder
from ostler.instances.standing import SYSTEM_ACTOR
from ostler.instances.store import Record
from ostler.instances.views import StartCause
from ostler.models.records import Policy


class Keeper(Life):
    """One model's instance. Its methods run on the event loop; those that do not wait cannot be torn."""

    def ask_start(
        self,
        cause: StartCause,
        actor: str,
        *,
        overrides: Mapping[str, Any] | None = None,
        is_batch: bool = False,
        is_new_wish: bool = False,
        awaits_files: bool = False,
    ) -> asyncio.Future[None]:
        """Make it run. Two starts are one: all get the future of the start that is under way.

        `is_batch`: it may come after those that somebody waits for.
        `is_new_wish`: it was not meant to run before; that is taken back where the start is refused,
        with `awaits_files` unless only its files are not here yet.
        """
        if cause is StartCause.PERSON:
            self.faults.clear()
        if self.attempt is not None:
            self._join(self.attempt, cause, actor, is_batch, is_new_wish)
            return self.attempt.done
        if self.is_ready:
            return orders.done()
        self.attempt = Attempt(
            cause,
            actor,
            overrides or {},
            is_batch=is_batch,
            is_new_wish=is_new_wish,
            awaits_files=awaits_files,
        )
        self._go_on()
        return self.attempt.done

    def ask_stop(self, order: StopOrder) -> asyncio.Future[None]:
        """Make it stop: no new requests from this moment on. Cancels a start that is under way."""
        if self.attempt is not None:
            name = self.model.name
            self._settle_attempt(StartCancelled(f"{name} was stopped by {order.actor} while it started"))
        return self._begin_stop(order)

    async def context_length(self) -> int | None:
        """The tokens that one request may have, asked of the engine where it was not asked yet."""
        if isinstance(self.host, Keeper):
            return await self.host.context_length()
        endpoint = self.endpoint
        if endpoint is not None and endpoint.context_length is None:
            await self._learn_context(self._watched())
        return endpoint.context_length if endpoint is not None else None

    async def start_with_server(self, cause: StartCause) -> None:
        """Start it because it should run; a failure is tried again, and nobody is pushed out.

        Returns once it has its place or none, so that those started after it come after it.
        """
        if self.attempt is None and not self.state.is_active:
            self.attempt = attempt = Attempt(cause, SYSTEM_ACTOR, is_restart=True, may_evict=False)
            self._go_on()
            await attempt.placed.wait()

    def ask_restart(self, actor: str, *, is_new_wish: bool = False) -> asyncio.Future[None]:
        """Stop it and start it anew, in one go.

        Where its launch is still the same, the engine is started anew for all who share it.
        """
        order = StopOrder("it is started anew", actor)
        order.guests = GuestsThen.GO_ON if self.drift else GuestsThen.WAIT
        if isinstance(self.host, Keeper) and not self.drift:
            self.host.ask_stop(order)
            self.host.ask_start(self.host.cause, actor)
        elif self.state.is_active:
            self.ask_stop(order)
        return self.ask_start(StartCause.PERSON, actor, is_new_wish=is_new_wish)

    def hold(self) -> None:
        """Let no new request pass until `let_pass`; those in flight go on."""
        self.is_held = True
        self._withdraw()

    def let_pass(self) -> None:
        """Requests may come again, if it still serves."""
        self.is_held = False
        self._bell.ring()
        endpoint, is_running = self.endpoint, self.state is InstanceState.RUNNING
        if endpoint is None or not endpoint.closed or not is_running or self._stop is not None:
            return
        if self.host is not None and not self.host.is_ready:
            return
        endpoint.closed = False
        self._house.routes.publish(self.model_id, endpoint)
        self._settle_attempt()

    def renew(self, order: StopOrder) -> None:
        """End it as it is; who waits for it gets it as it is then."""
        self._begin_stop(order)

    def keep_for(self, cause: StartCause, actor: str) -> None:
        """It is wanted for another reason from now on."""
        self.cause, self.actor = cause, actor

    def take_policy(self, policy: Policy) -> None:
        """The recipe's policy changed while it runs."""
        if self.endpoint is not None:
            self.endpoint.limit = policy.max_concurrency
        self._stand_again_in_line()
        self._bell.ring()

    def resume(self, record: Record, *, is_ready: bool) -> None:
        """Take on an engine that an earlier server started; it is alive."""
        self.record, self.cause, self.actor = record, record.cause, record.actor
        self.faults.count = record.restarts
        if is_ready:
            self._open()
        self._go_on()

    async def wait_for_room(self) -> None:
        """Return when a request has ended, for a model that is at its limit of requests."""
        await self._line.wait()

    def _join(
        self, attempt: Attempt, cause: StartCause, actor: str, is_batch: bool, is_new_wish: bool
    ) -> None:
        """Somebody else wants the start that is under way: it takes the stronger of both."""
        attempt.may_evict = True
        attempt.is_batch &= is_batch
        attempt.is_new_wish |= is_new_wish
        if cause is StartCause.PERSON:
            attempt.cause, attempt.actor, attempt.not_before = cause, actor, 0.0
            self._bell.ring()
        self._stand_again_in_line()

    async def close(self) -> None:
        """End looking after it; the engine goes on."""
        error = ShuttingDown("the server is ending", retry_after_s=5.0)
        self._withdraw()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.attempt is not None:
            orders.settle(self.attempt.done, error)
        if self._stop is not None:
            orders.settle(self._stop.done, error)
