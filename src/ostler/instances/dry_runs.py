"""The dry run of a start: what the preparer knows of it, and whether and where there is room for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ostler.core.errors import OstlerError
from ostler.core.findings import Category, Finding, Severity, overridden
from ostler.core.sizes import size_text
from ostler.downloads.plan import DownloadPlan
from ostler.fit.ledger import Bytes
from ostler.fit.need import Need
from ostler.fit.reading import Read
from ostler.instances import admission, seating, sharing, shortage
from ostler.instances.errors import WillNotFit
from ostler.instances.house import House
from ostler.instances.limits import own_limits
from ostler.instances.looking_ahead import of_error
from ostler.instances.plan import Candidate, Plan, Resident, Verdict
from ostler.instances.standing import Standing
from ostler.instances.views import DryRun
from ostler.models.records import FITS_NOT, Model
from ostler.runtimes.docker_images import ImageMissing

HUB_TIMEOUT_S = 30.0
MISSING = ("model_file_gone", "model_files_missing")
"""Codes of what is found where a model's files are not, or not all, here."""
NO_IMAGE = ImageMissing.code_of_class()
"""Code of what is found where a container's image is not here and may not be pulled."""
NO_RUNTIME = "runtime_unavailable"
"""Code of what is found where a runtime cannot be used on this machine, or not now."""


@dataclass(frozen=True, slots=True)
class HubView:
    """What a dry run asks the hub about a model's files that are not here.

    `plan` says what a pull of them would fetch, `read` gives the shape that their headers tell.
    """

    plan: Callable[[Model], Awaitable[DownloadPlan]]
    read: Callable[[Model], Awaitable[Read]]


async def dry_run(
    house: House,
    model: Model,
    overrides: Mapping[str, Any] | None,
    hub: HubView | None = None,
) -> DryRun:
    """What a start would do now; the same whether it runs already or not. Never raises OstlerError."""
    run = await house.preparer.dry_run(model, overrides)
    is_missing = any(run.has(code) for code in MISSING)
    is_sound = all(found.can_ignore for found in run.findings if found.is_error)
    if is_sound and (host := sharing.host_for(house, model, run.spec)) is not None:
        run = replace(run, fits=True, findings=(*run.findings, _shared(host)))
    elif is_sound:
        run = await _with_fit(house, run, model, overrides)
    elif is_missing and hub is not None and model.source.kind == "hub":
        run = await _with_download(house, run, model, overrides, hub)
    return replace(run, findings=tuple(overridden(run.findings, model.ignored)))


async def _with_fit(
    house: House,
    run: DryRun,
    model: Model,
    overrides: Mapping[str, Any] | None,
    read: Read | None = None,
) -> DryRun:
    """With what the scheduler would decide now. `read` is the shape where the files are not here."""
    try:
        open_ways = await seating.ways(house, model, overrides, read=read)
    except seating.DevicesGone as gone:
        return replace(run, fits=False, findings=(*run.findings, of_error(gone)))
    plan, holders, leaving = await _preview(house, admission.candidate(model, open_ways))
    way = next(way for way in open_ways if way.devices == plan.seat.devices)
    need = way.need
    on_way = seating.model_on(model, way.devices)
    if way.devices != model.policy.devices and read is None:  # another command, other choices
        run = replace(await house.preparer.dry_run(on_way, overrides), findings=run.findings)
    run = replace(
        run,
        devices=plan.seat.devices,
        would_stop=tuple(resident.model_name for resident in leaving),
        evictions=tuple(_eviction(resident, plan) for resident in leaving),
        findings=(
            *run.findings,
            *_by_engine(run, need),
            *_of_room(need, plan, leaving),
            *_of_devices(house, model),
        ),
        expected_load_s=await house.experience.expected_load_s(on_way, overrides),
    )
    if need.is_known:
        limits, staying = own_limits(model), [r for r in holders if r not in leaving]
        ledger = house.memory.ledger([resident.claim for resident in holders]).within(limits)
        after = house.memory.ledger([resident.claim for resident in staying]).within(limits)
        fit = tuple(shortage.fit_by_device(need.by_device, ledger, after))
        run = replace(run, fit=fit, fits=plan.verdict is not Verdict.NEVER)
    if plan.verdict is Verdict.NEVER:
        error = (
            WillNotFit(model.name, plan.reason, plan.facts)
            if read
            else await admission.will_not_fit(house, model, overrides, plan.reason, plan.facts)
        )
        found = replace(of_error(error), code=FITS_NOT, category=Category.MEMORY, can_ignore=True)
        run = replace(run, findings=(*run.findings, found))
    return run


async def _with_download(
    house: House, run: DryRun, model: Model, overrides: Mapping[str, Any] | None, hub: HubView
) -> DryRun:
    """What is to be fetched, whether the disk has room for it, and whether it would fit then."""
    spec = model.source.label
    try:
        async with asyncio.timeout(HUB_TIMEOUT_S):
            plan = await hub.plan(model)
            disk = {
                "needed_bytes": plan.need_bytes,
                "free_bytes": plan.free_bytes,
                "reserve_bytes": plan.reserve_bytes,
                "enough": plan.fits_disk,
            }
            run = replace(run, disk=disk)
            if not plan.fits_disk:
                run = replace(run, findings=(*run.findings, _no_disk(plan)))
            read = await hub.read(model)
    except OstlerError as error:
        return replace(run, findings=(*run.findings, of_error(error)))
    except TimeoutError:
        text = f"the hub did not say within {HUB_TIMEOUT_S:g} s what {spec} would need"
        found = Finding("hub_silent", Severity.WARNING, Category.CONFIG, "No answer from the hub", text)
        return replace(run, findings=(*run.findings, found))
    choice = await house.memory.choice(model, overrides, read=read)
    return await _with_fit(house, replace(run, chosen=tuple(choice.to_json())), model, overrides, read)


async def evictions_for(house: House, name: str, need: Bytes) -> list[dict[str, Any]]:
    """Who would leave now for a model of that name that needs these bytes by device, and why."""
    plan, _, leaving = await _preview(house, Candidate(0, name, need=need))
    return [_eviction(resident, plan) for resident in leaving]


async def _preview(house: House, candidate: Candidate) -> tuple[Plan, list[Resident], list[Resident]]:
    """What the scheduler would decide now, who else holds a place, and who of them would leave."""
    plan = await house.scheduler.preview(candidate)
    holders = [r for r in house.scheduler.holders() if r.model_id != candidate.model_id]
    by_id = {resident.model_id: resident for resident in holders}
    return plan, holders, [by_id[id] for id in (*plan.evict, *plan.finish) if id in by_id]


def _shared(host: Standing) -> Finding:
    name = host.model.name
    text = (
        f"it would share the running engine of {name}, which launches the same, and take no memory of its own"
    )
    return Finding("shares_engine", Severity.INFO, Category.MEMORY, "Shares an engine", text)


def _by_engine(run: DryRun, need: Need) -> list[Finding]:
    """Where nothing was chosen, the engine comes down by itself."""
    if need.shortened_to is None or any(line["name"] == "context_length" for line in run.chosen):
        return []
    text = f"the engine will shorten the context to about {need.shortened_to} tokens, to fit"
    return [Finding("context_shortened", Severity.WARNING, Category.MEMORY, "Shorter context", text)]


def _of_devices(house: House, model: Model) -> list[Finding]:
    gone = seating.missing(model, house.memory.devices)
    text = f"policy.devices names {', '.join(gone)}, not there now"
    return [Finding("devices_missing", Severity.WARNING, Category.CONFIG, "Devices", text)] if gone else []


def _of_room(need: Need, plan: Plan, leaving: list[Resident]) -> list[Finding]:
    texts = []
    if not need.is_known:
        texts.append(
            ("need_unknown", "Memory not known", f"whether it fits is not known: {need.unknown_why}")
        )
    if need.note is not None:
        texts.append(("no_gpu_seen", "The GPU is not used", need.note))
    if plan.reason and not leaving and plan.verdict is not Verdict.NEVER:
        texts.append(("no_room_now", "No room now", f"there is no room now: {plan.reason}"))
    return [Finding(code, Severity.WARNING, Category.MEMORY, title, text) for code, title, text in texts]


def _no_disk(plan: DownloadPlan) -> Finding:
    needed, free, kept = (size_text(n) for n in (plan.need_bytes, plan.free_bytes, plan.reserve_bytes))
    text = (
        f"{needed} are still to be fetched; {free} are free on that disk, and {kept} of them are to stay so"
    )
    fix = "Make room on that disk, or choose a smaller quantization."
    return Finding("disk_full", Severity.ERROR, Category.CONFIG, "Not enough disk", text, fix)


def _eviction(resident: Resident, plan: Plan) -> dict[str, Any]:
    was = "busy, finishes what it serves first" if resident.is_busy else f"idle for {resident.idle_s:.0f} s"
    return {"model": resident.model_name, "frees": resident.claim.held, "reason": f"{was}; {plan.reason}"}
