"""Recipes: snapshots of models under names of their own, from which models can be made again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.native.model_shapes import ModelOut, model_out
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Listing, Out, PageOut, hide_args, page_out, shape_of
from ostler.core.principals import Role
from ostler.models.recipes import Recipe

routes = router("recipes")

RecipeId = Annotated[int, Path(ge=1, le=2**31 - 1, description="The recipe's id.")]


@shape_of(Recipe)
class RecipeOut(Out):
    """A recipe. `content` is the model's record without its secrets, which `left_out` names."""

    content: dict[str, Any]


class RecipeIn(Body):
    """A recipe of a model (its name, or its id) as it is now."""

    name: str = Field(max_length=255)
    model: str | int
    description: str = Field("", max_length=10_000)


class RecipeChanges(Body):
    """What to change."""

    name: str | None = Field(None, max_length=255)
    description: str | None = Field(None, max_length=10_000)


class ModelFromRecipe(Body):
    """The name of the model to make; null: as the first was called."""

    name: str | None = Field(None, max_length=200)


@routes.get("/recipes", response_model=PageOut[RecipeOut], **needs(Role.MANAGER))
async def list_recipes(
    rooms: Rooms,
    who: Who,
    page: Listing,
    engine: Annotated[str | None, Query(max_length=50)] = None,
) -> Any:
    """Every recipe. Sort by name, id, created_at, updated_at, engine."""
    found = await rooms.recipes.list(search=page.search, engine=engine, **page.order("name"), **page.part)
    return page_out(found, [_shown(recipe) for recipe in found.items])


@routes.post("/recipes", response_model=RecipeOut, status_code=201, **needs(Role.MANAGER))
async def create_recipe(rooms: Rooms, who: Who, body: RecipeIn) -> Any:
    """Keep a model as it is now under a name of its own."""
    return _shown(await rooms.recipes.from_model(body.model, body.name, body.description, who))


@routes.get("/recipes/{recipe_id}", response_model=RecipeOut, **needs(Role.MANAGER))
async def show_recipe(rooms: Rooms, who: Who, recipe_id: RecipeId) -> Any:
    """One recipe."""
    return _shown(await rooms.recipes.get(recipe_id))


@routes.patch("/recipes/{recipe_id}", response_model=RecipeOut, **needs(Role.MANAGER))
async def change_recipe(rooms: Rooms, who: Who, recipe_id: RecipeId, body: RecipeChanges) -> Any:
    """Give another name or description."""
    return _shown(await rooms.recipes.update(recipe_id, who, name=body.name, description=body.description))


@routes.delete("/recipes/{recipe_id}", response_model=RecipeOut, **needs(Role.MANAGER))
async def delete_recipe(rooms: Rooms, who: Who, recipe_id: RecipeId) -> Any:
    """Delete a recipe; models made of it stay."""
    return _shown(await rooms.recipes.delete(recipe_id, who))


@routes.post("/recipes/{recipe_id}/model", response_model=ModelOut, status_code=201, **needs(Role.MANAGER))
async def make_model(rooms: Rooms, who: Who, recipe_id: RecipeId, body: ModelFromRecipe) -> Any:
    """Make a model of a recipe; it is stopped, and its secrets have to be given again."""
    return model_out(rooms, who, await rooms.recipes.make(recipe_id, body.name, who))


def _shown(recipe: Recipe) -> dict[str, Any]:
    content = {**recipe.content, "extra_args": hide_args(recipe.content["extra_args"])}
    return {**{name: getattr(recipe, name) for name in Recipe.__slots__}, "content": content}
