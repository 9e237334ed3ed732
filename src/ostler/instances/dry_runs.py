"""The part of a dry run that is about room: does it fit, where, and who would leave for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ostler.fit.ledger import Bytes
from ostler.fit.need import Need
from ostler.instances import admission, shortage
from ostler.instances.errors import WillNotFit
from ostler.instances.house import House
from ostler.instances.plan import Candidate, Plan, Resident, Verdict
from ostler.instances.views import DryRun
from ostler.models.records import Model


async def with_fit(house: House, run: DryRun, model: Model, overrides: Mapping[str, Any] | None) -> DryRun:
    """The dry run of a model that does not run, with what the scheduler would decide now."""
    need = await admission.need_now(house, model, overrides)
    plan, holders, leaving = await _preview(house, admission.candidate(model, need))
    run = replace(
        run,
        would_stop=tuple(resident.model_name for resident in leaving),
        evictions=tuple(_eviction(resident, plan) for resident in leaving),
        warnings=(*run.warnings, *_warnings(need, plan, leaving)),
        expected_load_s=await house.experience.expected_load_s(model, overrides),
    )
    if need.is_known:
        ledger = house.memory.ledger([resident.claim for resident in holders])
        fit = tuple(shortage.fit_by_device(need.by_device, ledger))
        run = replace(run, fit=fit, fits=plan.verdict is not Verdict.NEVER)
    if plan.verdict is Verdict.NEVER:
        fitting = await house.memory.context_that_fits(model, overrides)
        error = WillNotFit(model.name, plan.reason, plan.facts, fitting)
        run = replace(run, errors=(*run.errors, f"{error.message}. {error.hint}"), blocked_by=error.code)
    return run


async def evictions_for(house: House, name: str, need: Bytes) -> list[dict[str, Any]]:
    """Who would leave now for a model of that name that needs these bytes by device, and why."""
    plan, _, leaving = await _preview(house, Candidate(0, name, need=need))
    return [_eviction(resident, plan) for resident in leaving]


async def _preview(house: House, candidate: Candidate) -> tuple[Plan, list[Resident], list[Resident]]:
    """What the scheduler would decide now, who holds a place, and who of them would leave."""
    plan = await house.scheduler.preview(candidate)
    holders = house.scheduler.holders()
    by_id = {resident.model_id: resident for resident in holders}
    return plan, holders, [by_id[id] for id in (*plan.evict, *plan.finish) if id in by_id]


def _warnings(need: Need, plan: Plan, leaving: list[Resident]) -> list[str]:
    warnings = []
    if not need.is_known:
        warnings.append(f"whether it fits is not known: {need.unknown_why}")
    if need.note is not None:
        warnings.append(need.note)
    if need.shortened_to is not None:
        warnings.append(f"the engine will shorten the context to about {need.shortened_to} tokens, to fit")
    if plan.reason and not leaving and plan.verdict is not Verdict.NEVER:
        warnings.append(f"there is no room now: {plan.reason}")
    return warnings


def _eviction(resident: Resident, plan: Plan) -> dict[str, Any]:
    was = "busy, finishes what it serves first" if resident.is_busy else f"idle for {resident.idle_s:.0f} s"
    return {"model": resident.model_name, "frees": resident.claim.held, "reason": f"{was}; {plan.reason}"}
