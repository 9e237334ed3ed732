"""A start on its way to a place: what it needs, and the wait for room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.fit.need import Need
from ostler.instances.errors import NoRoom, WillNotFit
from ostler.instances.house import House
from ostler.instances.orders import Attempt
from ostler.instances.plan import Candidate
from ostler.models.records import Model


async def need_now(house: House, model: Model, overrides: Mapping[str, Any] | None = None) -> Need:
    """What a start would need, on the devices that are there now. Raises ModelFileGone, BrokenFile."""
    await house.memory.look()
    return await house.memory.need(model, overrides)


def candidate(model: Model, need: Need, *, may_evict: bool = True, ignore_fit: bool = False) -> Candidate:
    """The start as the scheduler sees it. A need that is not known or does not matter is left out."""
    counts = need.is_known and not ignore_fit
    by_device = need.by_device if counts else None
    return Candidate(model.id, model.name, model.policy.priority, may_evict, by_device)


async def admit(house: House, model: Model, wanted: Candidate, attempt: Attempt) -> None:
    """Return when it has its place. Raises NoRoom and WillNotFit, with a context length that fits, if any."""
    try:
        await house.scheduler.admit(wanted, timeout_s=house.settings().request_wait_s)
    except WillNotFit as error:
        fitting = await house.memory.context_that_fits(model, attempt.overrides)
        raise WillNotFit(model.name, error.reason, error.numbers, fitting) from None
    except NoRoom as error:
        if "devices" not in error.facts:
            raise
        stay = [holder.claim for holder in house.scheduler.holders() if not holder.may_leave]
        fitting = await house.memory.context_that_fits(model, attempt.overrides, beside=stay)
        raise error.with_context(fitting) from None
