"""The memory that a stored model will take, for every door that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ostler.api.services import Services
from ostler.core.errors import OstlerError
from ostler.fit.device import HOST_ID, Device
from ostler.fit.estimated import Estimate
from ostler.instances.limits import beyond_limit, own_limits, within_limits
from ostler.library.filesets import FileSet
from ostler.models.records import Model


async def estimate_of(
    rooms: Services, model: Model, options: Mapping[str, Any]
) -> tuple[Estimate, FileSet] | None:
    """The best estimate without asking the engine, and the files; None where these cannot be read."""
    try:
        files = await rooms.models.resolve_files(model)
        shape, beside = await rooms.shapes.of(files)
        devices = devices_for(rooms, model, await rooms.devices.list())
        (told,) = await rooms.fits.answer(shape, options, devices, beside=beside)
        better = await rooms.instances.experience.better_estimate(told, model, ask=False)
        return with_limit(better, model), files
    except OstlerError:
        return None


def devices_for(rooms: Services, model: Model, devices: Sequence[Device]) -> list[Device]:
    """These devices as they are for this model: its container may have a limit of its own."""
    return within_limits(devices, own_limits(model), rooms.settings.current.reserve_by_device)


def with_limit(estimate: Estimate, model: Model) -> Estimate:
    """The estimate, with a warning where its part on the host is more than the container may take."""
    host, limit = estimate.host, own_limits(model).get(HOST_ID)
    if limit is None or host.total_bytes <= limit:
        return estimate
    warning = beyond_limit(host.id, host.total_bytes, limit)
    return replace(estimate, warnings=(*estimate.warnings, warning))
