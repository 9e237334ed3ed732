"""Snapshots of models under names of their own, from which models can be made again.

A snapshot holds the whole record but its secrets: those are named in `left_out`, and have to be given
again. It outlives the model from which it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.core.clock import Clock
from ostler.core.database import Database, row_to_change
from ostler.core.errors import Conflict, InvalidField, NotFound
from ostler.core.events import EventLog, NewEvent
from ostler.core.launch import names_secret
from ostler.core.paging import Page
from ostler.core.principals import Principal, Role
from ostler.core.queries import check_sort, order_by, page_of
from ostler.core.states import DesiredState
from ostler.models.checks import as_new
from ostler.models.records import Model, NewModel, Policy, Source
from ostler.models.service import Models
from ostler.models.tables import RecipeRow

SORTS = ("name", "id", "created_at", "updated_at", "engine")
MAX_NAME = 255


class RecipeNotFound(NotFound):
    """No recipe has this id."""

    hint = "See them with: GET /ostler/v1/recipes"


class RecipeNameTaken(Conflict):
    """Another recipe has this name."""

    hint = "Choose another name."


_OF_RECIPE = ("name", "engine", "policy")
"""Fields of a record that a recipe has of its own, or in another form."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A snapshot of a model. `model_name` is how that was called; `left_out` names secrets, dotted."""

    id: int
    name: str
    description: str
    model_id: int | None
    model_name: str
    engine: str
    content: Mapping[str, Any]
    left_out: Sequence[str]
    created_at: datetime
    updated_at: datetime

    def new_model(self) -> NewModel:
        """What a model of it would be made of."""
        values = {**self.content, "source": Source.from_json(self.content["source"])}
        lists = {name: tuple(values[name]) for name in ("aliases", "extra_args")}
        return NewModel(**{**values, **lists})

    def as_model(self) -> Model:
        """The model of it, as if it were there (its id is 0)."""
        new = self.new_model()
        assert isinstance(new.source, Source), "it was checked when the recipe was made"
        values = {f.name: getattr(new, f.name) for f in fields(NewModel) if f.name not in _OF_RECIPE}
        return Model(
            **values,
            id=0,
            name=self.model_name,
            engine=self.engine,
            node="",
            policy=Policy.from_json(new.policy),
            desired_state=DesiredState.STOPPED,
            archived=False,
            revision=1,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )


class Recipes:
    """Every snapshot."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, models: Models) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._models = models

    async def list(
        self,
        *,
        search: str | None = None,
        engine: str | None = None,
        model_id: int | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Recipe]:
        """One page. `search` looks in names, descriptions and the models' names. Raises InvalidField."""
        check_sort("recipes", sort, SORTS)
        query = select(RecipeRow)
        if engine:
            query = query.where(RecipeRow.engine == engine)
        if model_id is not None:
            query = query.where(RecipeRow.model_id == model_id)
        if search:
            columns = (RecipeRow.name, RecipeRow.description, RecipeRow.model_name)
            query = query.where(or_(*(column.icontains(search, autoescape=True) for column in columns)))
        order = order_by(RecipeRow, sort, descending)
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(_recipe)

    async def get(self, recipe_id: int) -> Recipe:
        """One. Raises RecipeNotFound."""
        async with self._database.read() as session:
            return _recipe(_found(await session.get(RecipeRow, recipe_id), recipe_id))

    async def from_model(self, model: str | int, name: str, description: str, principal: Principal) -> Recipe:
        """Keep a model as it is now. Raises ModelNotFound, RecipeNameTaken, InvalidField, NotAllowed."""
        found = self._models.get(model)
        return await self._keep(name, description, as_new(found), found, principal)

    async def create(self, name: str, description: str, new: NewModel, principal: Principal) -> Recipe:
        """Keep the record of a model that is not there; it is checked as if it were made.

        Raises what Models.create raises, and RecipeNameTaken.
        """
        checked = await self._models.preview(new, principal)
        return await self._keep(name, description, as_new(checked), checked, principal)

    async def _keep(
        self, name: str, description: str, new: NewModel, model: Model, principal: Principal
    ) -> Recipe:
        principal.require(Role.POWER_USER, "keep recipes")
        content, left_out = _without_secrets(new)
        now = self._clock.now()
        row = RecipeRow(
            name=_checked_name(name),
            description=description,
            model_id=model.id or None,
            model_name=model.name,
            engine=model.engine,
            content=content,
            left_out=left_out,
            created_at=now,
            updated_at=now,
        )
        return await self._store(row, principal)

    async def update(
        self, recipe_id: int, principal: Principal, *, name: str | None = None, description: str | None = None
    ) -> Recipe:
        """Give another name or description. Raises RecipeNotFound, RecipeNameTaken, InvalidField."""
        principal.require(Role.POWER_USER, "change recipes")
        try:
            async with self._database.write() as session:
                row = _found(await row_to_change(session, RecipeRow, recipe_id), recipe_id)
                if name is not None:
                    row.name = _checked_name(name)
                if description is not None:
                    row.description = description
                row.updated_at = self._clock.now()
                await session.flush()
                await self._tell(session, "recipe.changed", row, principal)
        except IntegrityError as error:
            raise _taken(name or "") from error
        return _recipe(row)

    async def delete(self, recipe_id: int, principal: Principal) -> Recipe:
        """Delete one; models made of it stay. Raises RecipeNotFound."""
        principal.require(Role.POWER_USER, "delete recipes")
        async with self._database.write() as session:
            row = _found(await row_to_change(session, RecipeRow, recipe_id), recipe_id)
            gone = _recipe(row)
            await session.delete(row)
            await self._tell(session, "recipe.deleted", row, principal)
        return gone

    async def make(self, recipe_id: int, name: str | None, principal: Principal) -> Model:
        """A model of a recipe, stopped. `name` None: as the first was called. Raises as Models.create."""
        recipe = await self.get(recipe_id)
        new = replace(recipe.new_model(), name=name or recipe.model_name, aliases=(), read_only=False)
        return await self._models.create(new, principal)

    async def _store(self, row: RecipeRow, principal: Principal) -> Recipe:
        try:
            async with self._database.write() as session:
                session.add(row)
                await session.flush()
                await self._tell(session, "recipe.created", row, principal)
        except IntegrityError as error:
            raise _taken(row.name) from error
        return _recipe(row)

    async def _tell(self, session: AsyncSession, kind: str, row: RecipeRow, principal: Principal) -> None:
        await self._events.add(session, NewEvent(kind, "recipe", row.id, row.name, principal.name))


def _without_secrets(new: NewModel) -> tuple[dict[str, Any], list[str]]:
    """The record as JSON without its secrets, and where they were."""
    env = {name: value for name, value in new.env.items() if not names_secret(name)}
    left_out = [f"env.{name}" for name in sorted(set(new.env) - set(env))]
    args: list[str] = []
    in_secret = False
    for argument in new.extra_args:
        flag, equals, _ = argument.partition("=")
        if in_secret and not argument.startswith("-"):
            in_secret = False
            continue
        in_secret = argument.startswith("-") and names_secret(flag)
        if in_secret:
            left_out.append(f"extra_args.{flag}")
            in_secret = not equals
        else:
            args.append(argument)
    source = new.source.to_json() if isinstance(new.source, Source) else dict(new.source)
    shallow = {field.name: getattr(new, field.name) for field in fields(new)}
    mappings = {name: dict(value) for name, value in shallow.items() if isinstance(value, Mapping)}
    return {
        **shallow,
        **mappings,
        "source": source,
        "env": env,
        "extra_args": args,
        "aliases": list(new.aliases),
    }, left_out


def _checked_name(name: str) -> str:
    text = name.strip()
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise InvalidField("name", f"a recipe's name has from 1 to {MAX_NAME} characters")
    return text


def _found(row: RecipeRow | None, recipe_id: int) -> RecipeRow:
    if row is None:
        raise RecipeNotFound(f"there is no recipe {recipe_id}", recipe=recipe_id)
    return row


def _taken(name: str) -> RecipeNameTaken:
    return RecipeNameTaken(f"there is already a recipe named {name!r}", recipe=name)


def _recipe(row: RecipeRow) -> Recipe:
    return Recipe(**{field.name: getattr(row, field.name) for field in fields(Recipe)})
