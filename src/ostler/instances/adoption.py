"""After a restart of the server: what is still alive is taken on, what died is said to have died.

What the database says and what the runtimes remember are compared, one launch at a time:

- alive and known: adopted, in whatever state it truly is (`instance.adopted`);
- known and dead: marked (`instance.failed` or `instance.stopped`), and started again if it should run;
- alive and unknown (another database, a deleted model, a launch given up): stopped;
- of a runtime that does not answer: nothing is concluded. It counts as loading until the engine says
  ready or the runtime can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from ostler.core.errors import OstlerError
from ostler.core.states import DesiredState, InstanceState
from ostler.engines.base import Health
from ostler.instances.failures import explain_exit, log_tail
from ostler.instances.house import House
from ostler.instances.keeper import Keeper
from ostler.instances.orders import StopOrder
from ostler.instances.standing import SYSTEM_ACTOR
from ostler.instances.store import Note, Record
from ostler.instances.views import Failure
from ostler.runtimes.base import Discovered, Observed, Runtime, RuntimeAway

log = logging.getLogger(__name__)

PROBE_S = 2.0
"""How long start-up waits for the health of an adopted engine; a slower one is adopted as loading."""


async def adopt(
    house: House, runtimes: Mapping[str, Runtime], keeper_of: Callable[[int], Keeper]
) -> list[Discovered]:
    """Bring every keeper to the truth. Gives the launches that nobody knows, still to be stopped."""
    found: dict[tuple[str, int], Discovered] = {}
    for name, runtime in runtimes.items():
        with contextlib.suppress(RuntimeAway):
            for item in await runtime.discover():
                found[name, item.instance_id] = item
    for last in await house.store.last_of_each_model():
        if last.state is InstanceState.FAILED:
            keeper = keeper_of(last.model_id)
            keeper.record, keeper.failure = last, last.failure
    records = await house.store.active()
    newest = {record.model_id: record.id for record in records}
    taken = []
    settling = []
    for record in records:
        known = found.get((record.runtime, record.id))
        if known and (known.model_id, known.spec_digest) == (record.spec.model_id, record.spec_digest):
            taken.append((record.runtime, record.id))
            record = replace(record, handle=known.handle)
        if record.id == newest[record.model_id]:
            keeper_of(record.model_id).record = record
            settling.append(_settle_one(house, keeper_of(record.model_id)))
        else:
            settling.append(_close_old(house, record))
    await asyncio.gather(*settling)
    return [item for key, item in found.items() if key not in taken]


async def stop_unknown(runtimes: Mapping[str, Runtime], unknown: Discovered, grace_s: float) -> None:
    """End an engine that no launch of ours knows, and forget one that has ended."""
    runtime = runtimes[unknown.handle.runtime]
    try:
        if (await runtime.inspect(unknown.handle)).is_alive:
            log.warning(
                "stopping an engine that belongs to no launch of this server: instance %d of model %d",
                unknown.instance_id,
                unknown.model_id,
            )
        await runtime.stop(unknown.handle, grace_s=grace_s)
    except OstlerError as error:
        log.error("an engine that belongs to nobody cannot be stopped: %s", error.message)


async def stop_unknown_later(house: House, runtime: Runtime) -> None:
    """Wait until a runtime answers that did not at start-up, then end what no launch of ours knows."""
    while True:
        try:
            found = await runtime.discover()
            break
        except RuntimeAway as error:
            await asyncio.sleep(error.retry_after_s)
    known = {record.id for record in await house.store.active()}
    for item in found:
        if item.instance_id not in known:
            await stop_unknown({runtime.name: runtime}, item, house.settings().stop_grace_s)


async def _settle_one(house: House, keeper: Keeper) -> None:
    record = keeper.record
    assert record is not None
    try:
        engine = house.engine_of(record)
        if record.handle is None:
            await _mark_dead(house, keeper, Failure("the server ended before the engine was created"))
            return
        runtime, handle = house.runtime_of(record)
        seen = await runtime.inspect(handle)
        if not seen.is_alive:
            failure = explain_exit(
                engine, seen, await log_tail(runtime, handle), when="while the server was away"
            )
            await runtime.stop(handle, grace_s=0)
            await _mark_dead(house, keeper, failure, seen)
            return
    except RuntimeAway as error:
        await _take_unseen(house, keeper, error)
        return
    except OstlerError as error:  # its runtime or engine is not there any more
        await _mark_dead(house, keeper, Failure(error.message, hint=error.hint))
        return
    if record.state is InstanceState.STOPPING:
        _go_on_stopping(keeper, record)
        return
    limit_s = min(PROBE_S, house.settings().probe_timeout_s)
    health = await house.probe.ask(engine, handle.url, timeout_s=limit_s, was_ready=False)
    is_ready = health is Health.READY and not seen.port_taken
    state = InstanceState.RUNNING if is_ready else InstanceState.LOADING
    note = Note(
        SYSTEM_ACTOR,
        "it was still alive when the server started",
        {"was": record.state.value, "state": state.value, "pid": seen.pid},
        "instance.adopted",
    )
    ready_at = record.ready_at or (house.clock.now() if is_ready else None)
    record = await house.store.move(record, state, note, handle=handle, ready_at=ready_at)
    keeper.observed = seen
    keeper.resume(record, is_ready=is_ready)


async def _take_unseen(house: House, keeper: Keeper, error: RuntimeAway) -> None:
    """Its runtime does not answer: whether it lives is found out by its keeper."""
    record = keeper.record
    assert record is not None
    if record.state is InstanceState.STOPPING:
        _go_on_stopping(keeper, record)
        return
    data = {"was": record.state.value, "state": InstanceState.LOADING.value, "pid": None}
    note = Note(SYSTEM_ACTOR, error.message, data, "instance.adopted")
    keeper.resume(await house.store.move(record, InstanceState.LOADING, note), is_ready=False)


def _go_on_stopping(keeper: Keeper, record: Record) -> None:
    keeper.resume(record, is_ready=False)
    keeper.ask_stop(StopOrder("the stop was begun before the server restarted", SYSTEM_ACTOR, now=True))


async def _close_old(house: House, record: Record) -> None:
    """A launch that a newer one replaced while its end could not be stored."""
    try:
        if record.handle is not None:
            runtime, handle = house.runtime_of(record)
            await runtime.stop(handle, grace_s=house.settings().stop_grace_s)
    except OstlerError as error:
        log.error("an earlier engine of model %d cannot be stopped: %s", record.model_id, error.message)
    note = Note(SYSTEM_ACTOR, "a newer launch had replaced it", {"was": record.state.value})
    await house.store.move(record, InstanceState.STOPPED, note)


async def _mark_dead(house: House, keeper: Keeper, failure: Failure, seen: Observed | None = None) -> None:
    """It is not there any more. Where nobody wants it and nobody saw a fault, that is just `stopped`."""
    record = keeper.record
    assert record is not None
    wanted = keeper.model.desired_state is DesiredState.RUNNING
    was_stopping = record.state is InstanceState.STOPPING
    has_fault = seen is not None and (seen.oom_killed or bool(seen.exit_code))
    failed = not was_stopping and (wanted or has_fault)
    state = InstanceState.FAILED if failed else InstanceState.STOPPED
    note = Note(SYSTEM_ACTOR, failure.reason, {"was": record.state.value, "exit_code": failure.exit_code})
    keeper.record = await house.store.move(record, state, note, failure=None if was_stopping else failure)
    keeper.failure = failure if failed else None
