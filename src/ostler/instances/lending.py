"""Leases for requests whose model is not ready yet: the waiting room before the engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from shlex import quote

from ostler.core.principals import Principal
from ostler.core.states import InstanceState
from ostler.instances.errors import NotOnDemand, QueueFull, ShuttingDown, StartFailed, StillLoading
from ostler.instances.house import House
from ostler.instances.keeper import Keeper
from ostler.instances.leases import Lease
from ostler.instances.store import Note
from ostler.instances.views import StartCause

RETRY_AFTER_S = 5.0
REFUSALS_TOLD_EVERY_S = 10.0


class Lending:
    """Hands out leases, and bounds how many requests wait (setting `max_queue`)."""

    def __init__(self, house: House, keeper_of: Callable[[int], Keeper]) -> None:
        self._house = house
        self._keeper_of = keeper_of
        self._waiting = 0
        self._refused = 0
        self._told_at = float("-inf")
        self._is_closed = False

    def close(self) -> None:
        """No new leases that would have to wait."""
        self._is_closed = True

    async def lease(
        self, model_id: int, principal: Principal, timeout_s: float, *, is_batch: bool = False
    ) -> Lease:
        """See `Instances.lease`."""
        keeper = self._keeper_of(model_id)
        lease = self._house.routes.try_lease(model_id)
        if lease is not None:
            return lease
        if self._is_closed:
            raise ShuttingDown("the server is ending", retry_after_s=RETRY_AFTER_S)
        limit = self._house.settings().max_queue
        limit = (limit + 1) // 2 if is_batch else limit  # so that batch work leaves places to others
        if self._waiting >= limit:
            await self._refuse(keeper, principal, limit)
        self._waiting += 1
        keeper.claims += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await self._wait(keeper, principal, is_batch)
        except TimeoutError:
            raise self._too_late(keeper, timeout_s) from None
        finally:
            self._waiting -= 1
            keeper.claims -= 1

    async def _wait(self, keeper: Keeper, principal: Principal, is_batch: bool) -> Lease:
        while True:
            lease = self._house.routes.try_lease(keeper.model_id)
            if lease is not None:
                return lease
            if keeper.is_ready:
                await keeper.wait_for_room()
                continue
            self._check(keeper)
            started = keeper.ask_start(StartCause.DEMAND, principal.name, is_batch=is_batch)
            await asyncio.shield(started)

    def _check(self, keeper: Keeper) -> None:
        """May a request start it now?"""
        if keeper.attempt is not None:
            return
        model = keeper.model
        if keeper.state in (InstanceState.STARTING, InstanceState.LOADING) and not keeper.is_leaving:
            return
        if not model.policy.on_demand or model.archived:
            raise NotOnDemand(
                f"{model.name} is {keeper.state.value}, and requests may not start it",
                hint=f"Start it with: ostler start {quote(model.name)}",
                model=model.name,
                state=keeper.state.value,
            )
        if keeper.failure is not None and self._house.clock.monotonic() < keeper.faults.blocked_until:
            raise StartFailed(model.name, keeper.failure)

    async def _refuse(self, keeper: Keeper, principal: Principal, limit: int) -> None:
        name = keeper.model.name
        self._refused += 1
        now = self._house.clock.monotonic()
        if now - self._told_at >= REFUSALS_TOLD_EVERY_S:  # a flood of requests is not a flood of events
            self._told_at, count = now, self._refused
            self._refused = 0
            note = Note(principal.name, f"{limit} requests wait already", {"refused": count, "limit": limit})
            await self._house.store.tell("instance.refused", keeper.model_id, name, note)
        raise QueueFull(
            f"{limit} requests already wait for models to start",
            retry_after_s=RETRY_AFTER_S,
            hint="Try again soon, or raise the setting max_queue.",
            model=name,
        )

    def _too_late(self, keeper: Keeper, timeout_s: float) -> StillLoading:
        model, state = keeper.model, keeper.state
        return StillLoading(
            f"{model.name} is {state.value} and was not ready within {timeout_s:g} s",
            retry_after_s=RETRY_AFTER_S,
            hint=f"It goes on starting. See how far it is with: ostler logs {quote(model.name)}",
            model=model.name,
            state=state.value,
        )
