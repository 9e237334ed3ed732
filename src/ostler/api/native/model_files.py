"""Which files belong to which models, for many models at once: one look at the disk, not one each."""

from __future__ import annotations

from collections.abc import Iterable

from ostler.api.services import Services
from ostler.core.errors import OstlerError
from ostler.library.filesets import FileSet
from ostler.models.file_users import ListedFiles
from ostler.models.records import Model


async def files_by_model(rooms: Services, models: Iterable[Model]) -> dict[int, FileSet]:
    """The file set of each model by its id; one whose files are gone or broken is left out."""
    models = list(models)
    found: dict[int, FileSet] = {}
    if not models:
        return found
    listed = ListedFiles(await rooms.library.recent())
    for model in models:
        its = listed.of(model.source)
        if its is None and model.source.kind == "file":
            its = await _outside_every_root(rooms, model)
        if its is not None:
            found[model.id] = its
    return found


async def _outside_every_root(rooms: Services, model: Model) -> FileSet | None:
    try:
        return await rooms.models.resolve_files(model)
    except OstlerError:
        return None  # said in full where one model is shown
