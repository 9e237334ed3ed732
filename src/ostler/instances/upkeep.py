"""What is kept true beside the keepers: needs of adopted engines, drift, the runtimes' housekeeping."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from ostler.core.errors import OstlerError
from ostler.instances import seating
from ostler.instances.house import House
from ostler.instances.keeper import Keeper
from ostler.instances.preparing import Prepared
from ostler.instances.store import Record
from ostler.runtimes.base import Runtime

log = logging.getLogger(__name__)

TIDY_S = 5.0


async def learn_needs(house: House, keepers: Sequence[Keeper]) -> None:
    """What engines need that an earlier server started."""
    if not keepers:
        return
    try:
        await house.memory.look()
    except OstlerError as error:
        log.info("what adopted engines need is not known: %s", error.message)
        return
    for keeper in keepers:
        await _learn_need(house, keeper)


async def _learn_need(house: House, keeper: Keeper) -> None:
    try:
        devices = keeper.record.spec.devices if keeper.record else ()
        keeper.need = await house.memory.need(seating.model_on(keeper.model, devices))
    except OstlerError as error:
        log.info("what %s needs is not known: %s", keeper.model.name, error.message)


async def refresh_drift(house: House, keeper: Keeper) -> None:
    """Does what runs still match the recipe? Where it does, others may share it."""
    record = keeper.engine_record
    if record is None or not record.state.is_active:
        return
    try:
        as_placed = seating.placed(house, keeper.model, record.spec.devices)
        prepared = await house.preparer.prepare(as_placed)
    except OstlerError as error:
        log.info("what %s would run now is not known: %s", record.spec.model_name, error.message)
        keeper.drift = True
        return
    keeper.drift = _differs(prepared, record)
    if not keeper.drift:
        keeper.offer(prepared)


def _differs(prepared: Prepared, record: Record) -> bool:
    """An engine that was handed over still bears the name of the model for which it was launched."""
    wanted, runs = (prepared.engine.shared_form(spec) for spec in (prepared.spec, record.spec))
    if wanted is not None and runs is not None:
        return wanted.digest() != runs.digest()
    return prepared.spec.digest() != record.spec_digest


async def tidy(house: House, runtimes: Mapping[str, Runtime]) -> None:
    """Housekeeping every few seconds; ends by being cancelled."""
    while True:
        for name, runtime in runtimes.items():
            try:
                await runtime.tidy()
            except (OSError, OstlerError) as error:
                log.warning("housekeeping of the runtime %s failed: %s", name, error)
        await house.experience.look_again()
        await asyncio.sleep(min(TIDY_S, house.settings().probe_interval_s))
