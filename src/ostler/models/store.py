"""Models in the database: rows to values and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.paging import Page
from ostler.core.queries import check_sort, order_by, page_of
from ostler.core.states import DesiredState
from ostler.models.records import FITS_NOT, Model, Policy, Source
from ostler.models.tables import AliasRow, ModelRow

SORTS = ("name", "created_at", "updated_at", "engine", "origin", "id")


def write_row(row: ModelRow, model: Model) -> None:
    """Copy everything but the id and the aliases onto the row."""
    row.name, row.description, row.origin = model.name, model.description, model.origin
    row.read_only, row.engine, row.runtime = model.read_only, model.engine, model.runtime
    row.engine_command, row.runtime_options = model.engine_command, dict(model.runtime_options)
    row.node, row.task, row.source = model.node, model.task, model.source.to_json()
    row.options, row.extra_args, row.env = dict(model.options), list(model.extra_args), dict(model.env)
    row.request_defaults, row.policy = dict(model.request_defaults), model.policy.to_json()
    row.dialect_data, row.desired_state = dict(model.dialect_data), model.desired_state.value
    row.archived, row.revision = model.archived, model.revision
    write_ignored(row, model.ignored)
    row.created_at, row.updated_at = model.created_at, model.updated_at


def read_row(row: ModelRow, aliases: Iterable[str]) -> Model:
    """The value that a row and its aliases hold."""
    return Model(
        id=row.id,
        name=row.name,
        aliases=tuple(sorted(aliases)),
        description=row.description,
        origin=row.origin,
        read_only=row.read_only,
        engine=row.engine,
        runtime=row.runtime,
        engine_command=row.engine_command,
        runtime_options=dict(row.runtime_options),
        node=row.node,
        task=row.task,
        source=Source.from_json(row.source),
        options=dict(row.options),
        extra_args=tuple(row.extra_args),
        env={name: str(value) for name, value in row.env.items()},
        request_defaults=dict(row.request_defaults),
        policy=Policy.from_json(row.policy),
        dialect_data=dict(row.dialect_data),
        desired_state=DesiredState(row.desired_state),
        archived=row.archived,
        ignored=read_ignored(row),
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def write_ignored(row: ModelRow, codes: frozenset[str]) -> None:
    """Store the codes of errors that do not matter."""
    row.ignore_fit, row.ignored = FITS_NOT in codes, sorted(codes - {FITS_NOT})


def read_ignored(row: ModelRow) -> frozenset[str]:
    """The codes of errors that do not matter."""
    return frozenset(row.ignored) | ({FITS_NOT} if row.ignore_fit else frozenset())


async def load(session: AsyncSession, ids: Sequence[int] | None = None) -> list[Model]:
    """All models, or those with these ids, in the order of the ids."""
    query = select(ModelRow)
    names = select(AliasRow)
    if ids is not None:
        query, names = query.where(ModelRow.id.in_(ids)), names.where(AliasRow.model_id.in_(ids))
    aliases: dict[int, list[str]] = {}
    for alias in await session.scalars(names):
        aliases.setdefault(alias.model_id, []).append(alias.name)
    models = {row.id: read_row(row, aliases.get(row.id, ())) for row in await session.scalars(query)}
    return [models[i] for i in ids if i in models] if ids is not None else list(models.values())


async def write_aliases(session: AsyncSession, model_id: int, aliases: Iterable[str]) -> None:
    """Make these the model's aliases."""
    await session.execute(delete(AliasRow).where(AliasRow.model_id == model_id))
    session.add_all(AliasRow(name=name, model_id=model_id) for name in aliases)
    await session.flush()


async def page_of_ids(
    session: AsyncSession,
    *,
    search: str | None,
    engine: str | None,
    origin: str | None,
    archived: bool | None,
    sort: str,
    descending: bool,
    limit: int,
    offset: int,
) -> Page[int]:
    """The ids of one page. Raises InvalidField for an unknown sort."""
    check_sort("models", sort, SORTS)
    query = select(ModelRow.id)
    if search:
        names = select(AliasRow.model_id).where(AliasRow.name.icontains(search, autoescape=True))
        query = query.where(
            or_(
                ModelRow.name.icontains(search, autoescape=True),
                ModelRow.description.icontains(search, autoescape=True),
                ModelRow.id.in_(names),
            )
        )
    if engine:
        query = query.where(ModelRow.engine == engine)
    if origin:
        query = query.where(ModelRow.origin == origin)
    if archived is not None:
        query = query.where(ModelRow.archived == archived)
    order = order_by(ModelRow, sort, descending)
    return await page_of(session, query, *order, limit=limit, offset=offset)
