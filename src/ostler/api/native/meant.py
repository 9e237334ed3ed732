"""Which model the name in a path means: a stored one, or an automatic one that is not stored yet."""

from __future__ import annotations

from ostler.access.names import may_use
from ostler.api.services import Services
from ostler.core.errors import NotAllowed
from ostler.core.principals import Principal
from ostler.models.records import Model


class ModelNotForYou(NotAllowed):
    """The key's allow-list does not hold this model."""

    hint = "Ask an administrator for a key that may use it."


def stored(rooms: Services, who: Principal, name: str) -> Model:
    """The stored model of that name if this principal may use it. Raises ModelNotFound, ModelNotForYou."""
    model = rooms.models.get(_name_or_id(name))
    _refuse_unless_allowed(who, *model.listed_as)
    return model


async def meant(rooms: Services, who: Principal, name: str) -> Model:
    """The stored model, or an automatic one as adopting would make it (its id is 0). Raises as `stored` does.

    An automatic one whose files a stored model uses under another name is not meant: that model is.
    """
    found = await rooms.automatic.find(name)
    if found is None or found.used_by:
        return stored(rooms, who, name)
    _refuse_unless_allowed(who, name)
    return found.as_model(rooms.node)


async def adopted(rooms: Services, who: Principal, name: str) -> Model:
    """The stored model; an automatic one is made a stored one now. Raises as `stored` does."""
    if await rooms.automatic.find(name) is not None:
        _refuse_unless_allowed(who, name)
        return await rooms.automatic.adopt(name, who)
    return stored(rooms, who, name)


def _refuse_unless_allowed(who: Principal, *names: str) -> None:
    if not may_use(who, *names):
        raise ModelNotForYou(f"{who.name} may not use {names[0]}", model=names[0])


def _name_or_id(name: str) -> str | int:
    prefix, _, number = name.partition("id:")
    if not prefix and number.isdecimal() and len(number) < 19:
        return int(number)
    return name
