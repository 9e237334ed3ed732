"""Instances in the database. Every transition is one transaction with its event, before the act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.clock import Clock
from ostler.core.database import Database, row_to_change
from ostler.core.events import EventLog, NewEvent
from ostler.core.launch import Handle, LaunchSpec
from ostler.core.states import InstanceState
from ostler.instances.tables import InstanceRow
from ostler.instances.views import Failure, StartCause
from ostler.models.index import ModelNotFound
from ostler.models.records import Model
from ostler.models.tables import ModelRow

ACTIVE = tuple(state.value for state in InstanceState if state.is_active)

Also = Callable[[AsyncSession], Awaitable[None]]
"""Something more to be done in the same transaction."""


@dataclass(frozen=True, slots=True)
class Record:
    """One launch as it is stored. `spec` is as stored, without secrets."""

    id: int
    model_id: int
    node: str
    runtime: str
    state: InstanceState
    cause: StartCause
    actor: str
    failure: Failure | None
    spec: LaunchSpec
    spec_digest: str
    handle: Handle | None
    restarts: int
    created_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    load_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """The event of a transition: who, why in one sentence, and the numbers."""

    actor: str
    cause: str
    data: Mapping[str, Any]
    kind: str | None = None


class InstanceStore:
    """Reads and writes instance rows of one node."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, node: str) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self.node = node

    async def begin(
        self,
        spec: LaunchSpec,
        cause: StartCause,
        note: Note,
        *,
        restarts: int,
        also: Also | None = None,
    ) -> Record:
        """Store a new launch as `starting`. Raises ModelNotFound where its model was deleted just now."""
        async with self._database.write() as session:
            if await row_to_change(session, ModelRow, spec.model_id) is None:
                raise ModelNotFound(f"{spec.model_name} was deleted meanwhile", model=spec.model_name)
            row = InstanceRow(
                model_id=spec.model_id,
                node=self.node,
                runtime=spec.runtime,
                state=InstanceState.STARTING.value,
                cause=cause.value,
                actor=note.actor,
                failure=None,
                spec=spec.to_json(),
                spec_digest=spec.digest(),
                handle=None,
                restarts=restarts,
                created_at=self._clock.now(),
                ready_at=None,
                ended_at=None,
                load_seconds=None,
            )
            session.add(row)
            await session.flush()
            record = _record(row)
            await self._note(session, record, note)
            if also is not None:
                await also(session)
        return record

    async def move(
        self, record: Record, state: InstanceState, note: Note, *, also: Also | None = None, **changes: Any
    ) -> Record:
        """Store a transition, with further fields of the record that change with it."""
        if not state.is_active:
            changes.setdefault("ended_at", self._clock.now())
        after = replace(record, state=state, **changes)
        async with self._database.write() as session:
            row = await row_to_change(session, InstanceRow, record.id)
            if row is None:  # the model was deleted, and its rows with it
                return after
            row.state = after.state.value
            row.failure = after.failure.to_json() if after.failure else None
            row.handle = after.handle.to_json() if after.handle else None
            row.ready_at, row.ended_at, row.load_seconds = after.ready_at, after.ended_at, after.load_seconds
            row.restarts = after.restarts
            await self._note(session, after, note)
            if also is not None:
                await also(session)
        return after

    async def hand_over(
        self, record: Record, model: Model, cause: StartCause, actor: str, note: Note
    ) -> Record:
        """Make a launch that of another model; its spec stays as it was launched, but for the name.

        Raises ModelNotFound where that was deleted just now.
        """
        spec = replace(record.spec, model_name=model.name)
        after = replace(record, model_id=model.id, cause=cause, actor=actor, spec=spec)
        async with self._database.write() as session:
            if await row_to_change(session, ModelRow, model.id) is None:
                raise ModelNotFound(f"{model.name} was deleted meanwhile", model=model.name)
            row = await row_to_change(session, InstanceRow, record.id)
            if row is not None:
                row.model_id, row.cause, row.actor = model.id, cause.value, actor
                row.spec = spec.to_json()
                await self._note(session, after, note)
        return after

    async def set_cause(self, record_id: int, cause: StartCause, actor: str) -> None:
        """Somebody else wants it now: a person keeps what a request had started."""
        async with self._database.write() as session:
            row = await row_to_change(session, InstanceRow, record_id)
            if row is not None:
                row.cause, row.actor = cause.value, actor

    async def active(self) -> list[Record]:
        """Every launch of this node that was not over when it was last seen."""
        query = select(InstanceRow).where(InstanceRow.state.in_(ACTIVE), InstanceRow.node == self.node)
        return await self._read(query.order_by(InstanceRow.id))

    async def last_of_each_model(self) -> list[Record]:
        """The newest launch of every model on this node."""
        newest = select(func.max(InstanceRow.id)).where(InstanceRow.node == self.node)
        query = select(InstanceRow).where(InstanceRow.id.in_(newest.group_by(InstanceRow.model_id)))
        return await self._read(query)

    async def newest(self, model_id: int) -> Record | None:
        """The newest launch of one model on this node."""
        query = select(InstanceRow).where(InstanceRow.model_id == model_id, InstanceRow.node == self.node)
        records = await self._read(query.order_by(InstanceRow.id.desc()).limit(1))
        return records[0] if records else None

    async def tell(self, kind: str, model_id: int, model_name: str, note: Note) -> None:
        """Record an event that is not a transition (a refusal, for example)."""
        await self._events.record(
            NewEvent(kind, "model", model_id, model_name, note.actor, note.cause, note.data)
        )

    async def _read(self, query: Any) -> list[Record]:
        async with self._database.read() as session:
            rows: Sequence[InstanceRow] = (await session.scalars(query)).all()
            return [_record(row) for row in rows]

    async def _note(self, session: AsyncSession, record: Record, note: Note) -> None:
        kind = note.kind or f"instance.{record.state.value}"
        data = {"instance_id": record.id, "runtime": record.runtime, **note.data}
        name = record.spec.model_name
        await self._events.add(
            session, NewEvent(kind, "model", record.model_id, name, note.actor, note.cause, data)
        )


def _record(row: InstanceRow) -> Record:
    return Record(
        id=row.id,
        model_id=row.model_id,
        node=row.node,
        runtime=row.runtime,
        state=InstanceState(row.state),
        cause=StartCause(row.cause),
        actor=row.actor,
        failure=Failure.from_json(row.failure) if row.failure else None,
        spec=LaunchSpec.from_json(row.spec),
        spec_digest=row.spec_digest,
        handle=Handle.from_json(row.handle) if row.handle else None,
        restarts=row.restarts,
        created_at=row.created_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
        load_seconds=row.load_seconds,
    )
