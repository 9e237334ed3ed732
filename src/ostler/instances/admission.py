"""A start on its way to a place: what it needs, and the wait for room."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ostler.core.errors import OstlerError
from ostler.fit.need import Need
from ostler.instances.errors import NoRoom, WillNotFit
from ostler.instances.house import House
from ostler.instances.orders import Attempt
from ostler.instances.plan import Candidate, Verdict
from ostler.models.records import Model

log = logging.getLogger(__name__)


async def need_now(house: House, model: Model, overrides: Mapping[str, Any] | None = None) -> Need:
    """What a start would need, on the devices that are there now. Raises ModelFileGone, BrokenFile."""
    await house.memory.look()
    return await house.memory.need(model, overrides)


def candidate(model: Model, need: Need, attempt: Attempt | None = None) -> Candidate:
    """The start as the scheduler sees it. A need that is not known or does not matter is left out."""
    counts = need.is_known and not (attempt is not None and model.ignore_fit)
    by_device = need.by_device if counts else None
    may_evict = attempt is None or attempt.may_evict
    is_batch = attempt is not None and attempt.is_batch
    return Candidate(model.id, model.name, model.policy.priority, may_evict, by_device, is_batch)


async def has_room(house: House, model: Model) -> bool:
    """Would it start now, without anybody leaving for it? False where that cannot be told."""
    try:
        wanted = candidate(model, await need_now(house, model))
    except OstlerError as error:
        log.info("whether there is room for %s is not known: %s", model.name, error.message)
        return False
    return (await house.scheduler.preview(replace(wanted, may_evict=False))).verdict is Verdict.GO


async def admit(house: House, model: Model, need: Need, attempt: Attempt) -> None:
    """Return when it has its place. Raises NoRoom and WillNotFit, with a context length that fits, if any."""
    try:
        wanted = candidate(model, need, attempt)
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
