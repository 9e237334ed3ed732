"""A start on its way to a place: what it needs, and the wait for room."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ostler.core.errors import OstlerError
from ostler.fit.need import Need
from ostler.instances.errors import NoRoom, WillNotFit
from ostler.instances.experience import Launch
from ostler.instances.house import House
from ostler.instances.limits import own_limits
from ostler.instances.orders import Attempt
from ostler.instances.plan import Candidate, Seat, Verdict
from ostler.instances.preparing import Prepared
from ostler.instances.seating import Way, model_on, ways
from ostler.models.records import FITS_NOT, Model
from ostler.models.sources import ModelFileGone

log = logging.getLogger(__name__)


def candidate(model: Model, ways: Sequence[Way], attempt: Attempt | None = None) -> Candidate:
    """The start as the scheduler sees it. A need that is not known or does not matter is left out."""
    ignore_fit = attempt is not None and FITS_NOT in model.ignored
    seats = tuple(
        Seat(way.devices, way.need.by_device if way.need.is_known and not ignore_fit else None, way.rank)
        for way in ways
    )
    may_evict = attempt is None or attempt.may_evict
    is_batch = attempt is not None and attempt.is_batch
    policy = model.policy
    return Candidate(
        model.id,
        model.name,
        policy.priority,
        may_evict,
        is_batch=is_batch,
        seats=seats,
        limits=own_limits(model),
        group=policy.group,
    )


async def has_room(house: House, model: Model) -> bool:
    """Would it start now, without anybody leaving for it?

    False without its files, and where it cannot be told.
    """
    try:
        wanted = candidate(model, await ways(house, model))
    except ModelFileGone:
        return False
    except OstlerError as error:
        log.info("whether there is room for %s is not known: %s", model.name, error.message)
        return False
    return (await house.scheduler.preview(replace(wanted, may_evict=False))).verdict is Verdict.GO


@dataclass(frozen=True, slots=True)
class Placed:
    """A start that has its place: what will run, what it needs, and what its footprint is kept under."""

    prepared: Prepared
    need: Need
    launch: Launch | None


async def place(house: House, model_id: int, attempt: Attempt, prepared: Prepared) -> Placed:
    """What will run and what it needs, once it has its place in the scheduler.

    `prepared` is the launch as the recipe has it.

    Raises NoRoom and WillNotFit, with a context length that fits, if any, and what preparing may raise.
    """
    model = house.models.get(model_id)
    attempt.ways = await ways(house, model, attempt.overrides)
    way = await _admit(house, house.models.get(model_id), attempt)
    try:
        if way.devices != model.policy.devices:
            model = model_on(model, way.devices)
            prepared = await house.preparer.prepare(model, attempt.overrides)
        return Placed(prepared, way.need, await house.experience.launch(model, attempt.overrides))
    except OstlerError:
        house.scheduler.release(model_id)
        raise


async def will_not_fit(
    house: House,
    model: Model,
    overrides: Mapping[str, Any] | None,
    reason: str,
    facts: Mapping[str, Any],
) -> WillNotFit:
    """The refusal, with a setting that does fit, if there is one."""
    fitting = await house.memory.context_that_fits(model, overrides)
    leave_open = () if fitting else await house.memory.better_left_open(model, overrides)
    return WillNotFit(model.name, reason, facts, fitting, leave_open)


async def _admit(house: House, model: Model, attempt: Attempt) -> Way:
    try:
        wanted = candidate(model, attempt.ways, attempt)
        seat = await house.scheduler.admit(wanted, timeout_s=house.settings().request_wait_s)
        return next(way for way in attempt.ways if way.devices == seat.devices)
    except WillNotFit as error:
        raise await will_not_fit(house, model, attempt.overrides, error.reason, error.numbers) from None
    except NoRoom as error:
        if "devices" not in error.facts:
            raise
        stay = [holder.claim for holder in house.scheduler.holders() if not holder.may_leave]
        fitting = await house.memory.context_that_fits(model, attempt.overrides, beside=stay)
        raise error.with_context(fitting) from None
