"""Recipes: snapshots of models under names of their own."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.fields import VLLM
from ostler.api.dialects.cortex.models import in_cortex_words, new_model
from ostler.api.dialects.cortex.records import model_fields
from ostler.api.dialects.cortex.words import Id, Text, part, plain_task, task_word
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import NotFound
from ostler.core.principals import Role
from ostler.models.recipes import Recipe

routes = router("recipes")


class NoModelForRecipe(NotFound):
    """There is no model to make a recipe of."""


class RecipeIn(CortexBody):
    """The fields of a new model, under a recipe's name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    recipe_name: str | None = Field(None, max_length=255)
    description: str | None = Field(None, max_length=10_000)
    name: str = Field("", max_length=255)
    served_model_name: str = Field("", max_length=255)


class FromModelIn(CortexBody):
    """The recipe's name and what it is for."""

    name: str = Field(max_length=255)
    description: str | None = Field(None, max_length=10_000)


class RecipeChanges(CortexBody):
    """What to change."""

    name: str | None = Field(None, max_length=255)
    recipe_name: str | None = Field(None, max_length=255)
    description: str | None = Field(None, max_length=10_000)


@routes.get("/admin/recipes", **needs(Role.ADMIN))
async def list_recipes(
    rooms: Rooms, q: Text = None, engine_type: Text = None, limit: int = 100, offset: int = 0
) -> list[dict[str, Any]]:
    """Every recipe, the last changed first."""
    found = await rooms.recipes.list(
        search=q, engine=engine_type, sort="updated_at", descending=True, **part(limit, offset)
    )
    return [_item(recipe) for recipe in found.items]


@routes.post("/admin/recipes", **needs(Role.ADMIN))
async def create_recipe(rooms: Rooms, who: Who, body: RecipeIn) -> dict[str, Any]:
    """Keep the record of a model that is not there yet; it is checked as if it were made."""
    given = body.model_dump(exclude={"recipe_name", "description"})
    called = body.recipe_name or body.name
    named = {**given, "served_model_name": body.served_model_name or body.name or called}
    with in_cortex_words(given.get("engine_type") or VLLM):
        new = await new_model(rooms, named)
        made = await rooms.recipes.create(called, body.description or "", new, who)
    return _detail(rooms, made)


@routes.post("/admin/recipes/from-model/{model_id}", **needs(Role.ADMIN))
async def create_from_model(rooms: Rooms, who: Who, model_id: Id, body: FromModelIn) -> dict[str, Any]:
    """Keep a model as it is now."""
    if all(model.id != model_id for model in rooms.models.all()):
        raise NoModelForRecipe(f"there is no model {model_id}", model=model_id)
    return _detail(rooms, await rooms.recipes.from_model(model_id, body.name, body.description or "", who))


@routes.get("/admin/recipes/{recipe_id}", **needs(Role.ADMIN))
async def show_recipe(rooms: Rooms, recipe_id: Id) -> dict[str, Any]:
    """One recipe with all that it holds."""
    return _detail(rooms, await rooms.recipes.get(recipe_id))


@routes.patch("/admin/recipes/{recipe_id}", **needs(Role.ADMIN))
async def change_recipe(rooms: Rooms, who: Who, recipe_id: Id, body: RecipeChanges) -> dict[str, Any]:
    """Give another name or description."""
    name = body.recipe_name or body.name
    return _detail(rooms, await rooms.recipes.update(recipe_id, who, name=name, description=body.description))


@routes.delete("/admin/recipes/{recipe_id}", **needs(Role.ADMIN))
async def delete_recipe(rooms: Rooms, who: Who, recipe_id: Id) -> dict[str, str]:
    """Delete a recipe; models stay."""
    await rooms.recipes.delete(recipe_id, who)
    return {"status": "deleted"}


def _item(recipe: Recipe) -> dict[str, Any]:
    content = recipe.content
    return {
        "id": recipe.id,
        "name": recipe.name,
        "description": recipe.description,
        "model_id": recipe.model_id,
        "model_name": content.get("dialect_data", {}).get("cortex", {}).get("name", recipe.model_name),
        "served_model_name": recipe.model_name,
        "task": plain_task(task_word(content.get("task") or "", content.get("options") or {})),
        "engine_type": recipe.engine,
        "mode": "online" if content["source"]["kind"] == "hub" else "offline",
        "created_at": recipe.created_at,
        "updated_at": recipe.updated_at,
    }


def _detail(rooms: Services, recipe: Recipe) -> dict[str, Any]:
    """With every field of the model, as Cortex's forms are filled with; `left_out` names the secrets."""
    fields = model_fields(recipe.as_model(), rooms.settings.current.effective_base_dir)
    return {**fields, **_item(recipe), "config": fields, "left_out": list(recipe.left_out)}
