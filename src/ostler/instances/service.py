"""The use cases of running engines: start, stop, restart, apply, look, and lend to requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import replace
from shlex import quote
from typing import Any, Protocol

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import Conflict, OstlerError
from ostler.core.events import EventLog
from ostler.core.principals import Principal, Role
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings
from ostler.core.states import DesiredState, InstanceState
from ostler.engines.registry import Engines
from ostler.fit.devices import Device, Devices
from ostler.fit.ledger import Account, Bytes
from ostler.fit.reading import Shapes
from ostler.fit.reasons import Choice
from ostler.instances import changes, dry_runs, upkeep
from ostler.instances.adoption import adopt, stop_unknown, stop_unknown_later
from ostler.instances.errors import AlreadyRunning
from ostler.instances.furnishing import furnish
from ostler.instances.keeper import Keeper
from ostler.instances.leases import Lease
from ostler.instances.lending import Lending
from ostler.instances.looking_ahead import check_ignored
from ostler.instances.memory_report import memory_report
from ostler.instances.orders import GuestsThen, StopOrder
from ostler.instances.standing import SYSTEM_ACTOR
from ostler.instances.trial import Trial, try_out
from ostler.instances.views import DryRun, InstanceView, StartCause
from ostler.instances.wanted import Wanted
from ostler.models.records import Model
from ostler.models.service import Models
from ostler.runtimes.base import Runtime

log = logging.getLogger(__name__)
LOOK_AT_ADOPTED_S = 2.0
"""How long a server's start waits until it is known what its adopted engines run."""


class SettingsHolder(Protocol):
    """Settings that may change while the server runs."""

    @property
    def current(self) -> Settings:
        """The settings that hold now."""


class Instances:
    """Every engine of this server: ask for outcomes, the keepers sort out the rest."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        settings: SettingsHolder,
        models: Models,
        engines: Engines,
        runtimes: Mapping[str, Runtime],
        secret: ServerSecret,
        node: str,
        devices: Devices,
        shapes: Shapes,
        hub: dry_runs.HubView | None = None,
        *,
        gpus_are_chosen: bool = False,
    ) -> None:
        self._hub = hub
        self._settings = settings
        self._models = models
        self._runtimes = runtimes
        self._keepers: dict[int, Keeper] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._house = furnish(
            database,
            events,
            clock,
            lambda: settings.current,
            models,
            engines,
            runtimes,
            secret,
            node,
            devices,
            shapes,
            keepers=lambda: list(self._keepers.values()),
            gpus_are_chosen=gpus_are_chosen,
        )
        self._memory, self.experience = self._house.memory, self._house.experience
        self._lending = Lending(self._house, self._keeper)
        self._wanted = Wanted(self._house, self._keeper)
        models.add_guard(self._refuse_in_use)
        models.subscribe(self._model_changed)

    # The service

    async def start_service(self) -> None:
        """Adopt what is alive, mark what died, begin to start what should run."""
        unknown = await adopt(self._house, self._runtimes, self._keeper)
        grace_s = self._settings.current.stop_grace_s
        await asyncio.gather(*(stop_unknown(self._runtimes, item, grace_s) for item in unknown))
        adopted = [k for k in self._keepers.values() if k.record is not None and k.record.state.is_active]
        await upkeep.learn_needs(self._house, adopted)
        for runtime in self._runtimes.values():
            if runtime.trouble is not None:
                self._spawn(stop_unknown_later(self._house, runtime))
        known = asyncio.gather(*(upkeep.refresh_drift(self._house, keeper) for keeper in adopted))
        # a request that comes first would not know yet that it could share a running engine
        await asyncio.wait([known], timeout=LOOK_AT_ADOPTED_S)
        self._spawn(self._start_wanted(known))
        self._spawn(self._wanted.start_refused())
        self._spawn(upkeep.tidy(self._house, self._runtimes))

    async def close(self, *, stop_engines: bool = False) -> None:
        """End looking after them; the engines go on unless told otherwise. Safe to call twice."""
        self._lending.close()
        if stop_engines:
            await self._stop_all(StopOrder("the server is ending", SYSTEM_ACTOR, now=True))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._house.scheduler.close()
        await self.experience.close()
        await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))
        await self._house.probe.close()
        await asyncio.gather(*(runtime.close() for runtime in self._runtimes.values()))

    # For people

    async def start(
        self,
        name: str | int,
        principal: Principal,
        *,
        wait: bool = True,
        keep: bool = True,
        overrides: Mapping[str, Any] | None = None,
        ignore: Iterable[str] = (),
        awaits_files: bool = False,
    ) -> InstanceView:
        """Make it run, and keep it running: also after a crash and a restart of the server.

        Without `keep` it is as if a request had started it: it stops when idle. One that requests may
        not start is kept all the same: nothing would bring it back.

        Two starts are one; one that gives up does not end it for the others. `overrides` are engine
        options for this launch. `ignore` are codes of errors that a dry run finds and that do not matter;
        they hold for later starts too, until somebody stops it or starts it without. A start that is refused
        before there is an engine is over: the next server does not try it; with `awaits_files` it starts once
        its files are here, where only they are missing. Raises StartFailed, StartCancelled, StartBlocked,
        NoRoom, WillNotFit, ModelFileGone and what a launch spec may raise.
        """
        principal.require(Role.POWER_USER, "start models")
        ignored = check_ignored(ignore)
        model = self._models.get(name)
        if model.archived:
            raise Conflict(f"{model.name} is archived", hint="Take it out of the archive first.")
        keeper = self._keeper(model.id)
        if overrides and keeper.state.is_active:
            raise AlreadyRunning(
                f"{model.name} is {keeper.state.value} already",
                hint=f"Stop it first: ostler stop {quote(model.name)}",
            )
        keep = keep or not model.policy.on_demand
        desired = DesiredState.RUNNING if keep else model.desired_state
        is_new_wish = await self._want(model, desired, ignored=ignored)
        if not keep:
            keeper.faults.clear()
        cause = StartCause.PERSON if keep else StartCause.DEMAND
        started = keeper.ask_start(
            cause,
            principal.name,
            overrides=overrides,
            is_new_wish=is_new_wish,
            awaits_files=awaits_files,
        )
        if keep:
            await self._keep_for_person(keeper, principal)
        if wait:
            await asyncio.shield(started)
        return keeper.view()

    async def stop(self, name: str | int, principal: Principal, *, now: bool = False) -> InstanceView:
        """Stop it; returns when it is gone and its memory is free.

        Requests in flight may end first (at most drain_timeout_s), unless `now`. Stopping what is
        stopped is fine. Raises StopFailed.
        """
        principal.require(Role.POWER_USER, "stop models")
        model = self._models.get(name)
        order = StopOrder(
            f"stopped by {principal.name}",
            principal.name,
            now=now,
            desired=DesiredState.STOPPED,
            ignored=frozenset(),
        )
        await asyncio.shield(self._keeper(model.id).ask_stop(order))
        await self._want(model, DesiredState.STOPPED, ignored=frozenset())
        return self._keeper(model.id).view()

    async def restart(
        self, name: str | int, principal: Principal, *, wait: bool = True, ignore: Iterable[str] = ()
    ) -> InstanceView:
        """Stop it and start it anew; what was ignored is ignored again. Raises as `start` does."""
        principal.require(Role.POWER_USER, "restart models")
        model = self._models.get(name)
        ignored = model.ignored | check_ignored(ignore)
        is_new_wish = await self._want(model, DesiredState.RUNNING, ignored=ignored)
        keeper = self._keeper(model.id)
        started = keeper.ask_restart(principal.name, is_new_wish=is_new_wish)
        if wait:
            await asyncio.shield(started)
        return keeper.view()

    async def stop_all(self, principal: Principal, *, now: bool = False) -> list[InstanceView]:
        """Stop every engine; returns what is left to see of them."""
        principal.require(Role.MANAGER, "stop every model")
        reason = f"everything was stopped by {principal.name}"
        order = StopOrder(reason, principal.name, now=now, desired=DesiredState.STOPPED, ignored=frozenset())
        return await self._stop_all(order)

    async def apply(self, name: str | int, principal: Principal) -> InstanceView:
        """Restart it only if its launch spec changed; policy and request defaults hold at once anyway."""
        principal.require(Role.POWER_USER, "restart models")
        model = self._models.get(name)
        keeper = self._keeper(model.id)
        await upkeep.refresh_drift(self._house, keeper)
        if keeper.state.is_active and keeper.drift:
            await asyncio.shield(keeper.ask_restart(principal.name))
        return keeper.view()

    def views(self) -> list[InstanceView]:
        """Every model that is not stopped, by name."""
        views = (keeper.view() for keeper in self._keepers.values())
        return sorted((v for v in views if v.state is not InstanceState.STOPPED), key=lambda v: v.model_name)

    def view(self, model_id: int) -> InstanceView:
        """One model's instance; `stopped` where it never ran. Raises ModelNotFound."""
        return self._keeper(model_id).view()

    def idle_timeout_s(self, model_id: int) -> float | None:
        """Seconds without a request after which it stops; None for never. Raises ModelNotFound."""
        return self._keeper(model_id).idle_timeout_s()

    async def logs(
        self, name: str | int, *, tail: int | None = 100, follow: bool = False
    ) -> AsyncIterator[str]:
        """The log lines of the newest launch, oldest first; empty where it never ran."""
        record = self._keeper(self._models.get(name).id).engine_record
        if record is None:
            record = await self._house.store.newest(self._models.get(name).id)
        if record is None or record.handle is None:
            return
        runtime, handle = self._house.runtime_of(record)
        lines = runtime.logs(handle, tail_lines=tail, follow=follow)
        try:
            async for line in lines:
                yield line
        finally:
            if hasattr(lines, "aclose"):
                await lines.aclose()

    async def dry_run(
        self,
        name: str | int | Model,
        overrides: Mapping[str, Any] | None = None,
        *,
        ignore: Iterable[str] = (),
    ) -> DryRun:
        """What a start would do, with all that can be known before; `ignore` as for `start`.

        Raises InvalidField where a code cannot be ignored.
        """
        model = name if isinstance(name, Model) else self._models.get(name)
        model = replace(model, ignored=check_ignored(ignore))
        return await dry_runs.dry_run(self._house, model, overrides, self._hub)

    async def choice(self, name: str | int | Model) -> Choice:
        """What a start would choose for the engine options that the recipe leaves open."""
        try:
            return await self._memory.choice(name if isinstance(name, Model) else self._models.get(name))
        except OstlerError as error:
            return Choice(unknown_why=error.message)

    async def evictions_for(self, name: str, need: Bytes) -> list[dict[str, Any]]:
        """Who would leave now for a start that needs these bytes by device, each with the reason."""
        return await dry_runs.evictions_for(self._house, name, need)

    async def memory_of(self, model: Model) -> dict[str, Any] | None:
        """What it takes by device, estimated and measured, and how long it loads; JSON-ready."""
        return await memory_report(self._house, model)

    async def devices(self) -> list[tuple[Device, Account]]:
        """The devices as they are now, each with its account in the ledger: who holds its memory."""
        await self._memory.look()
        ledger = self._memory.ledger([holder.claim for holder in self._house.scheduler.holders()])
        return [(device, ledger.account_of(device)) for device in self._memory.devices]

    # For the gateway

    async def context_length(self, model_id: int) -> int | None:
        """The tokens that one request to its running engine may have; None where nobody says."""
        return await self._keeper(model_id).context_length()

    def try_lease(self, model_id: int) -> Lease | None:
        """A lease if the model runs and takes requests; never waits."""
        return self._house.routes.try_lease(model_id)

    async def lease(
        self, model_id: int, *, principal: Principal, timeout_s: float, is_batch: bool = False
    ) -> Lease:
        """A lease, starting the model if its policy allows; waits at most `timeout_s`.

        `is_batch`: a start for it may come after those that somebody waits for (`scheduler.py`).
        Raises QueueFull, StillLoading and NoRoom (503 with retry_after_s), StartFailed, NotOnDemand,
        ModelNotFound, and what preparing a start may raise.
        """
        return await self._lending.lease(model_id, principal, timeout_s, is_batch=is_batch)

    async def try_out(
        self, model_id: int, path: str, body: Mapping[str, Any], *, timeout_s: float
    ) -> Trial | None:
        """What its engine answers to one request; None where it does not run or takes no more requests."""
        lease = self.try_lease(model_id)
        if lease is None:
            return None
        try:
            return await try_out(lease, path, body, timeout_s=timeout_s)
        finally:
            lease.release()

    # Within

    async def _start_wanted(self, known: asyncio.Future[Any]) -> None:
        """What should run is started after it is known which running engines it could share."""
        await known
        await self._wanted.start_all()

    def _keeper(self, model_id: int) -> Keeper:
        keeper = self._keepers.get(model_id)
        if keeper is None:
            self._models.get(model_id)
            keeper = self._keepers[model_id] = Keeper(model_id, self._house)
        return keeper

    def _keeper_state(self, model_id: int) -> InstanceState:
        keeper = self._keepers.get(model_id)
        return keeper.state if keeper else InstanceState.STOPPED

    async def _want(
        self, model: Model, desired: DesiredState, *, ignored: frozenset[str] | None = None
    ) -> bool:
        """Store what a person wants; True where the model was not meant to run before, and is now."""
        before = self._models.get(model.id)
        if ignored is None:
            ignored = before.ignored
        if (before.desired_state, before.ignored) != (desired, ignored):
            await self._models.set_desired(model.id, desired, ignored=ignored)
        return before.desired_state is not desired and desired is DesiredState.RUNNING

    async def _keep_for_person(self, keeper: Keeper, principal: Principal) -> None:
        record = keeper.engine_record
        if record is not None and record.state.is_active and keeper.cause is not StartCause.PERSON:
            keeper.keep_for(StartCause.PERSON, principal.name)
        else:
            return
        if keeper.host is None:
            await self._house.store.set_cause(record.id, StartCause.PERSON, principal.name)

    async def _stop_all(self, order: StopOrder) -> list[InstanceView]:
        keepers = [k for k in self._keepers.values() if k.state is not InstanceState.STOPPED]
        order.guests = GuestsThen.LEAVE
        waits = [k.ask_stop(order.copy()) for k in keepers]
        results = await asyncio.gather(*waits, return_exceptions=True)
        for result in results:
            if isinstance(result, OstlerError):
                log.error("%s", result.message)
        if order.desired is not None:
            for keeper in keepers:
                await self._want(keeper.model, order.desired, ignored=order.ignored)
        return [keeper.view() for keeper in keepers]

    def _refuse_in_use(self, model: Model) -> str | None:
        state = self._keeper_state(model.id)
        return f"{model.name} is {state.value}" if state.is_active else None

    def _model_changed(self, before: Model | None, after: Model | None) -> None:
        model = after or before
        keeper = self._keepers.get(model.id) if model else None
        if keeper is None or before is None:
            return
        if after is None:
            del self._keepers[before.id]
        elif before.revision != after.revision and keeper.state.is_active:
            keeper.take_policy(after.policy)
            changes.begin(self._house, keeper)
            self._spawn(changes.settle(self._house, keeper))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the room of instances failed", exc_info=error)
