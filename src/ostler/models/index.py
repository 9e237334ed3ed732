"""All names of all models, in memory, so that a request finds its model without a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ostler.core.errors import NotFound
from ostler.core.near import near_names
from ostler.models.records import Model


class ModelNotFound(NotFound):
    """No model has this name."""

    hint = "See what there is with: ostler list"


Listener = Callable[[Model | None, Model | None], None]


class ModelIndex:
    """Models by id and by every name; tells its listeners of each change as (before, after)."""

    def __init__(self) -> None:
        self._by_id: dict[int, Model] = {}
        self._by_name: dict[str, Model] = {}
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Hear of every change from now on; before or after is None at creation or deletion."""
        self._listeners.append(listener)

    def fill(self, models: Iterable[Model]) -> None:
        """Take these models in place of all."""
        self._by_id = {model.id: model for model in models}
        self._by_name = {name: model for model in self._by_id.values() for name in model.names}

    def put(self, model: Model) -> None:
        """Add or replace one."""
        before = self._by_id.get(model.id)
        for name in before.names if before else ():
            self._by_name.pop(name, None)
        self._by_id[model.id] = model
        for name in model.names:
            self._by_name[name] = model
        self._tell(before, model)

    def drop(self, model_id: int) -> None:
        """Take one out."""
        before = self._by_id.pop(model_id, None)
        if before is None:
            return
        for name in before.names:
            self._by_name.pop(name, None)
        self._tell(before, None)

    def find(self, name: str) -> Model | None:
        """The model with this name or alias."""
        return self._by_name.get(name)

    def get(self, name_or_id: str | int) -> Model:
        """The model with this name, alias or id. Raises ModelNotFound with near names."""
        if isinstance(name_or_id, int):
            found = self._by_id.get(name_or_id)
        else:
            found = self._by_name.get(name_or_id)
        if found is None:
            near = self.near(str(name_or_id))
            hint = f"Did you mean {' or '.join(near)}?" if near else None
            raise ModelNotFound(f"there is no model {name_or_id!r}", hint=hint, model=name_or_id, near=near)
        return found

    def hub_token_of(self, model_id: int) -> str | None:
        """The hub's token that this model has of its own; None where it has none, or is gone."""
        found = self._by_id.get(model_id)
        return found.hub_token if found else None

    def near(self, name: str) -> list[str]:
        """Up to three names that look like this one."""
        return near_names(name, self._by_name)

    def all(self) -> list[Model]:
        """Every model, by name."""
        return sorted(self._by_id.values(), key=lambda model: model.name)

    def _tell(self, before: Model | None, after: Model | None) -> None:
        for listener in self._listeners:
            listener(before, after)
