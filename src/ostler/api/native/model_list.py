"""The list of models: stored and automatic ones as one, filtered, in order, and one page of it."""

from __future__ import annotations

from dataclasses import dataclass

from ostler.access.names import may_use
from ostler.api.services import Services
from ostler.api.shapes import Paging
from ostler.core.paging import Page
from ostler.core.principals import Principal
from ostler.core.queries import check_sort
from ostler.core.states import InstanceState
from ostler.library.filesets import FileSet
from ostler.models.records import Model
from ostler.models.store import SORTS


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which models are asked for; None: all. `automatic` True: only those, False: none of them."""

    engine: str | None = None
    origin: str | None = None
    state: InstanceState | None = None
    archived: bool | None = None
    automatic: bool | None = None


async def page_of_models(
    rooms: Services, who: Principal, page: Paging, wanted: Wanted
) -> tuple[Page[Model], dict[str, FileSet]]:
    """One page, and the files of automatic ones by name. Raises InvalidField for an unknown sort."""
    sort = page.sort or "name"
    check_sort("models", sort, SORTS)
    found = [] if wanted.automatic else rooms.models.all()
    files: dict[str, FileSet] = {}
    if wanted.automatic is not False:
        for model in await rooms.automatic.list():
            files[model.name] = model.file_set
            found.append(model.as_model(rooms.node))
    text = (page.search or "").lower()
    found = [
        model
        for model in found
        if wanted.engine in (None, model.engine)
        and wanted.origin in (None, model.origin)
        and wanted.archived in (None, model.archived)
        and (not text or _holds(model, text))
        and may_use(who, *model.listed_as)
        and wanted.state in (None, _state(rooms, model))
    ]
    found.sort(key=lambda model: (model.id, model.name))
    found.sort(key=lambda model: getattr(model, sort), reverse=page.descending)
    return page.cut(found), files


def _holds(model: Model, text: str) -> bool:
    return any(text in part.lower() for part in (*model.names, model.description))


def _state(rooms: Services, model: Model) -> InstanceState:
    return rooms.instances.view(model.id).state if model.id else InstanceState.STOPPED
