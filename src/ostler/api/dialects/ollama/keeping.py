"""Deleting and copying models by name."""

from __future__ import annotations

from fastapi.responses import Response

from ostler.api.dialects.ollama import details
from ostler.api.dialects.ollama.door import Answer, NamedBody, OllamaBody, router
from ostler.api.dialects.ollama.names import named, own_name, stored
from ostler.api.dialects.ollama.residence import unload_idle
from ostler.api.door import needs
from ostler.api.native.model_files import in_use, uses
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import Conflict, OstlerError
from ostler.core.principals import Principal, Role
from ostler.library.deletion import DeletePlan
from ostler.models.automatic import ORIGIN
from ostler.models.records import Model

routes = router("models")


class UsedByOthers(Conflict):
    """What lies in a cache cannot be deleted while stored models are made of it."""


class CopyIn(OllamaBody):
    """From one name to another."""

    source: str
    destination: str


@routes.delete("/api/delete", **needs(Role.POWER_USER))
async def delete_model(rooms: Rooms, who: Who, body: NamedBody) -> Answer:
    """Delete a model by name.

    Files go with it only where the name stands for them: what was pulled, or uploaded to make it, into a
    folder that Ostler fills, and no other model uses. Else they are kept, and the answer says so. An engine
    that only requests wanted, and that none uses now, is stopped for it.
    """
    model = await named(rooms, body.its_name, who)
    if model.id:
        await unload_idle(rooms, model, who)
    plan = await _its_files(rooms, model, who) if _stands_for_files(model) else None
    if model.id:
        await rooms.models.delete(model.id, who)
    elif plan is None:
        raise UsedByOthers(f"the files of {model.name} are those of other models", hint="Delete those first.")
    if plan is None:
        return {"status": "success", "files_kept": model.source.label}
    gone = await rooms.library.delete(plan, who)
    return {"status": "success", "freed_bytes": gone.freed_bytes}


@routes.post("/api/copy", **needs(Role.POWER_USER))
async def copy_model(rooms: Rooms, who: Who, body: CopyIn) -> Response:
    """A second model of the same files."""
    model = await stored(rooms, body.source, who)
    await rooms.models.copy(model.id, own_name(body.destination), who)
    return Response(status_code=200)


def _stands_for_files(model: Model) -> bool:
    return model.origin == ORIGIN or bool(details.kept(model).get("uploaded"))


async def _its_files(rooms: Services, model: Model, who: Principal) -> DeletePlan | None:
    """What deleting its files would do, None where others use them or they are gone already.

    Raises NotAllowed where who asks may not delete files, FileInUse, DeletionNotAllowed.
    """
    try:
        files = await rooms.models.resolve_files(model)
    except OstlerError:
        return None
    if any(other.id != model.id and uses(other, files) for other in rooms.models.all()):
        return None
    who.require(Role.MANAGER, "delete model files")
    return await rooms.library.plan_delete(files.id, await in_use(rooms))
