"""Which files belong to which models, for many models at once: one look at the disk, not one each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ostler.api.services import Services
from ostler.core.errors import OstlerError
from ostler.library.deletion import InUse
from ostler.library.filesets import FileSet
from ostler.models.file_users import ListedFiles
from ostler.models.index import ModelNotFound
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


def uses(model: Model, files: FileSet) -> bool:
    """Does the model's source mean these files?"""
    source = model.source
    if source.kind == "file":
        return source.path == str(files.path) or any(source.path == str(file.path) for file in files.files)
    if files.repo is None or source.repo is None or source.repo.lower() != files.repo.lower():
        return False
    if source.file is not None:
        return any(str(file.path).endswith(f"/{source.file}") for file in files.files)
    return source.tag is None or (files.tag or "").lower() == source.tag.lower()


async def in_use(rooms: Services) -> InUse:
    """Says which model that is not stopped uses a path."""
    users: dict[str, list[Model]] = {}
    models = rooms.models.all()
    its_files = await files_by_model(rooms, models)
    for model in models:
        files = its_files.get(model.id)
        if files is None:  # gone or broken: no engine runs on them
            continue
        for path in (files.path, *(file.path for file in files.files), *filter(None, [files.mmproj])):
            users.setdefault(str(path), []).append(model)

    def user_of(path: Path) -> str | None:
        for model in users.get(str(path), ()):
            try:
                state = rooms.instances.view(model.id).state
            except ModelNotFound:
                continue  # deleted meanwhile, so it was stopped
            if state.is_active:
                return model.name
        return None

    return user_of


async def _outside_every_root(rooms: Services, model: Model) -> FileSet | None:
    try:
        return await rooms.models.resolve_files(model)
    except OstlerError:
        return None  # said in full where one model is shown
