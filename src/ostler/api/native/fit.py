"""Fit: does a model go in, and with which settings."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.estimates import devices_for, with_limit
from ostler.api.native.fit_here import better_here
from ostler.api.native.meant import meant
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import Body
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.fit.answering import MAX_CONTEXTS
from ostler.fit.beside import Beside
from ostler.fit.counting import Shape
from ostler.fit.device import pooled
from ostler.fit.errors import NotEstimable
from ostler.fit.reading import shape_on_hub
from ostler.hub.specs import MAX_SPEC_LENGTH, parse_spec
from ostler.models.records import NewModel
from ostler.models.sources import source_of

routes = router("fit")


class FitIn(Body):
    """What is asked: exactly one of `model` (a name), `path` and `hub` (`org/repo:quant`).

    `options` are engine options over those of the recipe. `contexts` are context lengths in tokens to
    try. `on` describes hardware in words ("2x24GiB", "rtx-4090"), `hardware` as an object; without
    either it is this host's. `gpus` takes some of the GPUs by their place.
    """

    model: str | None = Field(None, max_length=300)
    path: str | None = Field(None, max_length=4096)
    hub: str | None = Field(None, max_length=MAX_SPEC_LENGTH)
    engine: str | None = Field(None, max_length=100)
    options: dict[str, Any] = Field(default_factory=dict)
    contexts: list[int] = Field(default_factory=list, max_length=MAX_CONTEXTS)
    gpus: list[int] | None = Field(None, max_length=256)
    on: str | None = Field(None, max_length=1000)
    hardware: dict[str, Any] | None = None


@routes.post("/fit", response_model=None, **needs(Role.POWER_USER))
async def fit(rooms: Rooms, who: Who, body: FitIn) -> dict[str, Any]:
    """What a model needs on each device against what is free, and the largest context that fits.

    `evictions` names who would leave for it on this host. With several `contexts` the answer is that
    of the first, and `contexts` holds all of them. A model on the hub is not downloaded: the headers of
    its files are read.
    """
    shape, beside, options = await _what_is_asked(rooms, who, body)
    devices = await rooms.fits.hardware(body.on, body.hardware, body.gpus)
    model = None if body.model is None else await meant(rooms, who, body.model)
    if model is not None:
        devices = devices_for(rooms, model, devices)
    found = await rooms.fits.answer(shape, options, devices, body.contexts, beside=beside)
    best = await better_here(rooms, who, body, found[0], options)
    best = best if model is None else with_limit(best, model)
    answer = best.to_json()
    is_here = body.on is None and body.hardware is None
    needed = pooled({p.id: p.total_bytes for p in (*best.devices, best.host)}, devices)
    name = body.model or body.path or str(body.hub)
    answer["evictions"] = await rooms.instances.evictions_for(name, needed) if is_here else []
    if len(found) > 1:
        answer["contexts"] = [one.to_json() for one in found]
    return answer


async def _what_is_asked(
    rooms: Services, who: Principal, body: FitIn
) -> tuple[Shape, Beside, dict[str, Any]]:
    """The model's shape, what goes beside it, and all options in their canonical names."""
    given = [name for name in ("model", "path", "hub") if getattr(body, name) is not None]
    if len(given) != 1:
        raise InvalidField("model", "say which model: exactly one of model, path and hub")
    if body.model is not None:
        model = await meant(rooms, who, body.model)
        options = await rooms.models.tried_options(body.options, model.engine, who, model.options)
        return (*await rooms.shapes.of(await rooms.models.resolve_files(model)), options)
    if body.path is not None:
        new = NewModel({"path": body.path}, engine=body.engine, options=body.options)
        model = await rooms.models.preview(new, who)
        return (*await rooms.shapes.of(await rooms.models.resolve_files(model)), dict(model.options))
    return await _of_spec(rooms, who, body)


async def _of_spec(rooms: Services, who: Principal, body: FitIn) -> tuple[Shape, Beside, dict[str, Any]]:
    """From the files here where the repo was pulled, else from parts of those on the hub."""
    spec = parse_spec(str(body.hub), endpoint=rooms.hub.endpoint)
    source = source_of(spec)
    here = await rooms.library.find(
        repo=source.repo, file=source.file, tag=source.tag, revision=source.revision
    )
    remote = None if here else await rooms.hub.inspect(spec)
    file_format = here.format if here else remote.format if remote else ""
    engine = rooms.engines.get(body.engine) if body.engine else rooms.engines.for_format(file_format)
    checked = await rooms.models.tried_options(body.options, engine.name, who, {})
    if here is not None:
        return (*await rooms.shapes.of(here), checked)
    if remote is None:
        raise NotEstimable(f"there is nothing to read of {spec.repo}")
    return (*shape_on_hub(remote), checked)
