"""The use cases of recipes: create, read, change, copy, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import PurePath
from shlex import quote
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit, row_to_change
from ostler.core.errors import Conflict, InvalidField, NotFound
from ostler.core.events import EventLog, NewEvent
from ostler.core.near import near_names
from ostler.core.paging import Page
from ostler.core.principals import Principal, Role
from ostler.core.states import DesiredState
from ostler.engines.registry import Engines
from ostler.library.filesets import FileSet
from ostler.models import store
from ostler.models.checks import (
    DOCUMENTS,
    as_new,
    defaults,
    environment,
    flag,
    merged,
    policy,
    text,
)
from ostler.models.index import Listener, ModelIndex, ModelNotFound
from ostler.models.names import check_name, name_from
from ostler.models.records import ORIGINS, Model, NewModel, Source
from ostler.models.sources import SourceReader
from ostler.models.tables import ModelRow
from ostler.models.trust import refuse_untrusted, refuse_untrusted_options
from ostler.runtimes.container_options import ContainerOptions

RUNTIMES = ("process", "docker", "kserve")
_CHANGEABLE = frozenset(
    {
        "name",
        "description",
        "engine",
        "runtime",
        "engine_command",
        "task",
        "aliases",
        "source",
        "extra_args",
        "archived",
        "dialect_data",
        *DOCUMENTS,
    }
)

Guard = Callable[[Model], str | None]
"""Says why a model may not be deleted or renamed now, or None."""


class NameTaken(Conflict):
    """Another model has this name or alias."""


class ModelInUse(Conflict):
    """The model is not stopped."""


class TooManyModels(Conflict):
    """As many models as the setting `max_models` allows are there."""

    hint = "Delete one (ostler rm NAME keeps its files), or raise the setting max_models."


class ReadOnlyModel(Conflict):
    """The recipe belongs to a catalog and cannot be changed here."""

    hint = "Copy it and change the copy: ostler cp NAME NEW-NAME"


class ChangedMeanwhile(Conflict):
    """Somebody else changed it first."""

    hint = "Read it again and repeat the change."


class Models:
    """Every recipe. Reads by name are in memory; changes are committed before they are seen.

    `most` says how many there may be; 0: any number.
    """

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        engines: Engines,
        sources: SourceReader,
        node: str,
        most: Callable[[], int] = lambda: 0,
    ) -> None:
        self._most = most
        self._database = database
        self._events = events
        self._clock = clock
        self._engines = engines
        self._sources = sources
        self._node = node
        self._index = ModelIndex()
        self._guards: list[Guard] = []
        self.find = self._index.find
        self.get = self._index.get
        self.near = self._index.near
        self.hub_token_of = self._index.hub_token_of
        self.all = self._index.all

    async def start(self) -> None:
        """Read every model into memory."""
        async with self._database.read() as session:
            self._index.fill(await store.load(session))

    def subscribe(self, listener: Listener) -> None:
        """Hear of each change as (before, after)."""
        self._index.subscribe(listener)

    def add_guard(self, guard: Guard) -> None:
        """Let an upper room refuse deletion and renaming while a model is in use."""
        self._guards.append(guard)

    async def list(
        self,
        *,
        search: str | None = None,
        engine: str | None = None,
        origin: str | None = None,
        archived: bool | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Model]:
        """One page of models. `search` looks in names, aliases and descriptions."""
        async with self._database.read() as session:
            page = await store.page_of_ids(
                session,
                search=search,
                engine=engine,
                origin=origin,
                archived=archived,
                sort=sort,
                descending=descending,
                limit=limit,
                offset=offset,
            )
            return Page(await store.load(session, page.items), page.total, limit, offset)

    async def resolve_files(self, model: Model) -> FileSet:
        """The model's files, all there. Raises ModelFileGone or BrokenFile."""
        return await self._sources.files_of(model)

    async def preview(self, new: NewModel, principal: Principal, *, files_may_come: bool = False) -> Model:
        """The model that `create` would make, checked in full, not saved (id 0)."""
        return await self._check(new, principal, files_may_come=files_may_come)

    async def tried_options(
        self, options: Mapping[str, Any], engine: str, principal: Principal, before: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Engine options in canonical names, over those of a recipe, for a question about it.

        Raises NotAllowed where they name files that this principal may not have read, UnknownOption,
        BadOptionValue.
        """
        table = self._engines.get(engine).options
        checked, roots = table.validate(options), await self._sources.roots()
        await asyncio.to_thread(refuse_untrusted_options, checked, before, table, roots, principal)
        return {**before, **checked}

    async def create(self, new: NewModel, principal: Principal, *, files_may_come: bool = False) -> Model:
        """Check and store a recipe; it is stopped. Needs the role power_user.

        `files_may_come`: one whose engine is said is stored also where its files are not here yet. Raises
        InvalidField, UnknownOption, BadOptionValue, NameTaken, TooManyModels, BrokenFile, ModelFileGone.
        """
        principal.require(Role.POWER_USER, "create models")
        model = await self._check(new, principal, files_may_come=files_may_come)
        async with self._database.write() as session:
            self._refuse_taken(model.names, None)
            if (most := self._most()) and len(self._index.all()) >= most:
                raise TooManyModels(f"there are {most} models already, the most that may be", most=most)
            row = ModelRow()
            store.write_row(row, model)
            session.add(row)
            await session.flush()
            await store.write_aliases(session, row.id, model.aliases)
            model = replace(model, id=row.id)
            await self._note(session, "model.created", model, principal, {"source": model.source.label})
            self._publish(session, model)
        return model

    async def update(
        self,
        name: str | int,
        changes: Mapping[str, Any],
        principal: Principal,
        *,
        expected_revision: int | None = None,
        files_may_come: bool = False,
    ) -> Model:
        """Change some fields. Documents (options, env, request_defaults, policy, runtime_options) are merged
        key by key, null taking a key out (JSON merge patch, RFC 7396). Raises as `create` does, and
        ReadOnlyModel, ChangedMeanwhile, ModelInUse (renaming one that runs).
        """
        principal.require(Role.POWER_USER, "change models")
        before = self._index.get(name)
        self._refuse_changes(before, changes, expected_revision)
        after = await self._check(
            merged(before, changes), principal, keep_source=before, files_may_come=files_may_come
        )
        after = replace(
            after,
            id=before.id,
            archived=flag("archived", changes.get("archived", before.archived)),
            created_at=before.created_at,
            revision=before.revision + 1,
        )
        async with self._database.write() as session:
            self._refuse_taken(after.names, before.id)
            row = await self._row(session, before.id)
            if row.revision != before.revision:
                raise ChangedMeanwhile(f"{before.name} was changed by somebody else", model=before.name)
            wish = DesiredState(row.desired_state)  # it may have been started since `before` was read
            after = replace(after, desired_state=wish, ignored=store.read_ignored(row))
            store.write_row(row, after)
            await store.write_aliases(session, after.id, after.aliases)
            await self._note(session, "model.changed", after, principal, {"fields": sorted(changes)})
            self._publish(session, after)
        return after

    async def copy(self, name: str | int | Model, new_name: str, principal: Principal) -> Model:
        """A second recipe for the same files. Raises as `create` does."""
        original = name if isinstance(name, Model) else self._index.get(name)
        copied = replace(as_new(original), name=new_name, aliases=(), origin="native", read_only=False)
        return await self.create(copied, principal)

    async def delete(self, name: str | int, principal: Principal) -> Model:
        """Delete the recipe, never its files. Raises ModelInUse while it is not stopped."""
        principal.require(Role.POWER_USER, "delete models")
        model = self._index.get(name)
        self._ask_guards(model)
        async with self._database.write() as session:
            row = await self._row(session, model.id)
            await session.delete(row)
            await self._note(session, "model.deleted", model, principal, {"files_kept": model.source.label})
            after_commit(session, lambda: self._index.drop(model.id))
        return model

    async def set_desired(
        self,
        model_id: int,
        desired: DesiredState,
        session: AsyncSession | None = None,
        *,
        ignored: frozenset[str] | None = None,
    ) -> None:
        """Store what the owner wants, within the caller's transaction where one is given.

        `ignored` are codes of errors that do not matter; None leaves them as they are. Raises ModelNotFound.
        """
        if session is None:
            async with self._database.write() as own:
                return await self.set_desired(model_id, desired, own, ignored=ignored)
        row = await self._row(session, model_id)
        before = self._index.get(model_id)
        ignored = before.ignored if ignored is None else ignored
        row.desired_state = desired.value
        store.write_ignored(row, ignored)
        self._publish(session, replace(before, desired_state=desired, ignored=ignored))
        return None

    async def _row(self, session: AsyncSession, model_id: int) -> ModelRow:
        """The model's row; another client may have deleted it since its name was looked up."""
        row = await row_to_change(session, ModelRow, model_id)
        if row is None:
            raise ModelNotFound("the model was deleted meanwhile", model=model_id)
        return row

    async def _check(
        self,
        new: NewModel,
        principal: Principal,
        *,
        keep_source: Model | None = None,
        files_may_come: bool = False,
    ) -> Model:
        if keep_source is not None and new.source == keep_source.source:
            source = keep_source.source
        else:
            source = await self._sources.read(new.source, principal)
        unchanged = keep_source is not None and source == keep_source.source
        files = None
        if not (unchanged and new.engine):
            files = await self._files(source, may_come=files_may_come and new.engine is not None)
        engine = self._engine_for(new.engine, files, source)
        name = check_name(new.name) if new.name is not None else self._free_name(source, files)
        aliases = tuple(sorted({check_name(alias, "aliases") for alias in new.aliases} - {name}))
        _one_of("runtime", new.runtime, RUNTIMES)
        _one_of("origin", new.origin, ORIGINS)
        rules = self._engines.get(engine)
        rules.check_extra_args(new.extra_args)
        rules.check_env(environment(new.env))
        roots = await self._sources.roots()
        await asyncio.to_thread(refuse_untrusted, new, keep_source, rules.options, roots, principal)
        ContainerOptions.read(new.runtime_options)
        options = rules.options.validate(new.options)
        now = self._clock.now()
        return Model(
            id=0,
            name=name,
            aliases=aliases,
            description=text("description", new.description),
            origin=new.origin,
            read_only=new.read_only,
            engine=engine,
            runtime=new.runtime,
            engine_command=new.engine_command,
            runtime_options=dict(new.runtime_options),
            node=self._node,
            task=text("task", new.task),
            source=source,
            options=options,
            extra_args=tuple(new.extra_args),
            env=environment(new.env),
            request_defaults=defaults(new.request_defaults),
            policy=policy(new, options),
            dialect_data=dict(new.dialect_data),
            desired_state=DesiredState.STOPPED,
            archived=False,
            revision=1,
            created_at=now,
            updated_at=now,
        )

    async def _files(self, source: Source, *, may_come: bool) -> FileSet | None:
        try:
            return await self._sources.files(source)
        except NotFound:
            if not may_come:
                raise
            return None

    def _engine_for(self, asked: str | None, files: FileSet | None, source: Source) -> str:
        if asked is not None:
            engine = self._engines.get(asked)
            if files is not None and files.format not in engine.formats:
                raise InvalidField(
                    "engine",
                    f"{asked} does not load {files.format} files",
                    hint=f"Use {self._engines.for_format(files.format).name}, or another source.",
                )
            return engine.name
        if files is not None:
            return self._engines.for_format(files.format).name
        raise InvalidField(
            "source",
            f"the files of {source.label} are not here",
            hint=f"Fetch them with: ostler pull {source.label}",
            source=source.to_json(),
        )

    def _free_name(self, source: Source, files: FileSet | None) -> str:
        if source.kind == "hub" and source.repo:
            tag = source.tag or (PurePath(source.file).stem if source.file else None)
            wanted = name_from(f"{source.repo}:{tag}" if tag else source.repo)
        else:
            wanted = name_from(files.name if files else PurePath(source.path or "model").stem)
        return check_name(wanted)

    def _refuse_taken(self, names: tuple[str, ...], own_id: int | None) -> None:
        for name in names:
            other = self._index.find(name)
            if other is not None and other.id != own_id:
                raise NameTaken(
                    f"the name {name} belongs to another model",
                    hint=f"Choose another name, or look at it with: ostler show {quote(other.name)}",
                    model=other.name,
                )

    def _refuse_changes(self, model: Model, changes: Mapping[str, Any], expected: int | None) -> None:
        if model.read_only:
            raise ReadOnlyModel(f"{model.name} comes from a catalog and is read-only", model=model.name)
        if expected is not None and expected != model.revision:
            raise ChangedMeanwhile(
                f"{model.name} is at revision {model.revision}, not {expected}", revision=model.revision
            )
        for field in changes:
            if field not in _CHANGEABLE:
                near = near_names(field, _CHANGEABLE)
                hint = f"Did you mean {near[0]}?" if near else f"One of: {', '.join(sorted(_CHANGEABLE))}."
                raise InvalidField(field, f"a model has no field {field!r} that can be changed", hint=hint)
        if changes.get("name", model.name) != model.name:
            self._ask_guards(model)

    def _ask_guards(self, model: Model) -> None:
        for guard in self._guards:
            reason = guard(model)
            if reason is not None:
                raise ModelInUse(
                    reason, hint=f"Stop it first: ostler stop {quote(model.name)}", model=model.name
                )

    async def _note(
        self, session: AsyncSession, kind: str, model: Model, principal: Principal, data: dict[str, Any]
    ) -> None:
        await self._events.add(
            session, NewEvent(kind, "model", model.id, model.name, principal.name, "", data)
        )

    def _publish(self, session: AsyncSession, model: Model) -> None:
        after_commit(session, lambda: self._index.put(model))


def _one_of(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise InvalidField(field, f"unknown {field} {value!r}", hint=f"One of: {', '.join(known)}.")
