"""Automatic models: what lies in a cache of the Hub is served by its name, though nobody made a model of it.

They are worked out from the disk and stored nowhere. The first use of one makes a stored model of it
(`adopt`), which then is as any other; deleting that makes it automatic again, for its files stay.
"""

from __future__ import annotations

import asyncio
import builtins
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from ostler.core.near import near_names
from ostler.core.principals import Principal, Role
from ostler.core.states import DesiredState
from ostler.engines.registry import Engines
from ostler.library.filesets import FileSet
from ostler.library.service import Library
from ostler.models.automatic_names import is_servable, named, place_of
from ostler.models.file_users import ListedFiles
from ostler.models.index import ModelNotFound
from ostler.models.names import is_name
from ostler.models.records import Model, NewModel, Policy, Source
from ostler.models.service import Models

ORIGIN = "library"
MOST_COMPARED = 100


@dataclass(frozen=True, slots=True)
class AutomaticModel:
    """A file set of a cache, under the name by which it can be used.

    `used_by` are names of the stored models that were made from the same files: it is not listed then, but
    its name still works. `source` is what an adopted model would have.
    """

    name: str
    file_set: FileSet
    engine: str
    source: Source
    used_by: tuple[str, ...] = ()

    def as_model(self, node: str) -> Model:
        """What adopting it would make (its id is 0)."""
        return Model(
            id=0,
            name=self.name,
            aliases=(),
            description="",
            origin=ORIGIN,
            read_only=False,
            engine=self.engine,
            runtime="process",
            engine_command=None,
            node=node,
            task="",
            source=self.source,
            options={},
            extra_args=(),
            env={},
            request_defaults={},
            policy=Policy(),
            dialect_data={},
            desired_state=DesiredState.STOPPED,
            archived=False,
            revision=0,
            created_at=self.file_set.modified_at,
            updated_at=self.file_set.modified_at,
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What was worked out, and of which look at the disk and which state of the models."""

    listed: list[FileSet]
    revision: int
    models: list[AutomaticModel]


class AutomaticModels:
    """The models that are there because their files are."""

    def __init__(self, library: Library, models: Models, engines: Engines) -> None:
        self._library = library
        self._models = models
        self._engines = {form: engine.name for engine in reversed(list(engines)) for form in engine.formats}
        self._adopting = asyncio.Lock()
        self._revision = 0
        self._known: _Known | None = None
        models.subscribe(self._changed)

    async def list(self, *, with_used: bool = False) -> list[AutomaticModel]:
        """Every one by name. `with_used`: also those whose files a stored model uses under another name.

        In a cache of thousands of files what other programs put there may be seen one look later; what
        Ostler put there is always seen.
        """
        listed = await self._library.recent()
        revision, known = self._revision, self._known
        if known is None or known.listed is not listed or known.revision != revision:
            stored = self._models.all()
            found = await asyncio.to_thread(self._work_out, listed, stored)
            known = self._known = _Known(listed, revision, found)
        return [model for model in known.models if with_used or not model.used_by]

    async def find(self, name: str) -> AutomaticModel | None:
        """The one of that name as the disk is now; None where there is none or a stored model has it."""
        repo = name.partition(":")[0]
        if self._models.find(name) is not None or repo.count("/") != 1 or not is_name(name):
            return None
        candidates = await self._library.of_repo(repo)
        if not candidates:
            return None
        its_models = [model for model in self._models.all() if _may_use(model.source, repo, candidates)]
        found = await asyncio.to_thread(self._work_out, candidates, its_models)
        return next((model for model in found if model.name == name), None)

    async def adopt(self, name: str, principal: Principal) -> Model:
        """The stored model of that name, made now where it was automatic; of several at once one is made.

        Whoever may use a model may be the first to do so: no role is asked for. Raises ModelNotFound.
        """
        async with self._adopting:
            if (stored := self._models.find(name)) is not None:
                return stored
            found = await self.find(name)
            if found is None:
                raise ModelNotFound(f"there is no model {name!r}", model=name, near=self.near(name))
            new = NewModel(found.source, name=name, engine=found.engine, origin=ORIGIN)
            return await self._models.create(new, replace(principal, role=Role.ADMIN))

    def near(self, name: str) -> builtins.list[str]:
        """Names of the last list that look like this one."""
        known = [model.name for model in self._known.models] if self._known else []
        word = name.rpartition("/")[2].partition(":")[0].lower()
        # Of thousands of names only the likely ones are compared letter by letter.
        return near_names(name, [other for other in known if word in other.lower()][:MOST_COMPARED])

    def _changed(self, before: Model | None, after: Model | None) -> None:
        if before is None or after is None or (before.names, before.source) != (after.names, after.source):
            self._revision += 1

    def _work_out(self, listed: Iterable[FileSet], stored: Iterable[Model]) -> builtins.list[AutomaticModel]:
        files_here = ListedFiles(listed)
        users = files_here.users(stored)
        repos: dict[str, list[FileSet]] = defaultdict(list)
        for files in listed:
            if is_servable(files, self._engines):
                repos[(files.repo or "").lower()].append(files)
        found = [
            AutomaticModel(
                name,
                files,
                self._engines[files.format],
                _source_of(files, files_here),
                tuple(users.get(files.id, ())),
            )
            for of_repo in repos.values()
            for name, files in named(of_repo, self._is_taken, users).items()
        ]
        return sorted(found, key=lambda model: model.name)

    def _is_taken(self, name: str) -> bool:
        return self._models.find(name) is not None


def _may_use(source: Source, repo: str, candidates: Collection[FileSet]) -> bool:
    """True where a model of that source could be one of these files of the repo."""
    if source.kind == "hub":
        return (source.repo or "").lower() == repo.lower()
    return any(source.path in (str(files.path), *(str(f.path) for f in files.files)) for files in candidates)


def _source_of(files: FileSet, files_here: ListedFiles) -> Source:
    """The repo and the file, where they mean these files: they outlive an update of the cache."""
    by_file = Source(kind="hub", repo=files.repo, file=place_of(files) or None)
    by_tag = Source(kind="hub", repo=files.repo, tag=files.tag if files.format == "gguf" else None)
    for source in (by_file, by_tag):
        if files_here.of(source) is files:
            return source
    return Source(kind="file", path=str(files.path))
