"""Which files belong to which models, for many models at once: one look at the disk, not one each."""

from __future__ import annotations

from collections.abc import Iterable

from ostler.library.filesets import FileSet
from ostler.library.finding import choose_by_repo
from ostler.models.records import Model, Source


class ListedFiles:
    """File sets of one listing, by what a source may say of them."""

    def __init__(self, listed: Iterable[FileSet]) -> None:
        self._by_path: dict[str, FileSet] = {}
        self._by_repo: dict[str, list[FileSet]] = {}
        for files in listed:
            for path in (files.path, *(file.path for file in files.files)):
                self._by_path[str(path)] = files
            if files.repo is not None:
                self._by_repo.setdefault(files.repo.lower(), []).append(files)

    def of(self, source: Source) -> FileSet | None:
        """The set that a source means, None where it is not listed."""
        if source.kind == "hub":
            candidates = self._by_repo.get((source.repo or "").lower(), ())
            return choose_by_repo(candidates, file=source.file, tag=source.tag, revision=source.revision)
        return self._by_path.get(source.path or "")

    def users(self, models: Iterable[Model]) -> dict[str, list[str]]:
        """The names of the models that use each set, by its id."""
        users: dict[str, list[str]] = {}
        for model in models:
            if (files := self.of(model.source)) is not None:
                users.setdefault(files.id, []).extend(model.names)
        return users
