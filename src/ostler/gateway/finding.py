"""Which model a request means, by its name: a stored one, an upstream's, or one of a cache of the Hub."""

from __future__ import annotations

from ostler.core.principals import Principal
from ostler.gateway.listing import find_model, refuse_unless_allowed
from ostler.gateway.ports import AutomaticNames, ModelNames
from ostler.models.automatic import AutomaticModel
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel, Pools


class ModelFinder:
    """Each method raises ModelNotFound, with near names, and ModelNotAllowed."""

    def __init__(self, models: ModelNames, pools: Pools, automatic: AutomaticNames) -> None:
        self._models = models
        self._pools = pools
        self._automatic = automatic

    async def meant(self, name: str, principal: Principal) -> Model | ExternalModel:
        """The model that a request means; an automatic one is stored at this, its first, use.

        Where nothing has the whole name, what stands before its first slash may be an instance (as with
        llamactl: `inst/model`).
        """
        found = self._find(name, principal) or await self._adopt(name, principal)
        return found or self._stored(name, principal, or_instance=True)

    async def at_path(self, name: str, principal: Principal) -> Model:
        """The model of ours that a path names, all of it."""
        found = None if self._models.find(name) else await self._adopt(name, principal)
        return found or self._stored(name, principal)

    async def look_at(self, name: str, principal: Principal) -> Model | ExternalModel | AutomaticModel:
        """One model as lists have it; looking at an automatic one does not adopt it."""
        model = self._find(name, principal) or await self._automatic.find(name)
        if isinstance(model, AutomaticModel):
            refuse_unless_allowed(principal, name)
        return model or self._stored(name, principal)

    def _find(self, name: str, principal: Principal) -> Model | ExternalModel | None:
        """The stored model, else one that an upstream serves."""
        found: Model | ExternalModel | None = self._models.find(name)
        if found is None and (found := self._pools.find(name)) is not None:
            refuse_unless_allowed(principal, name)
        elif found is not None:
            found = find_model(self._models, name, principal)
        return found

    async def _adopt(self, name: str, principal: Principal) -> Model | None:
        """The model that a cache of the Hub has by that name, made a stored one."""
        if await self._automatic.find(name) is None:
            return None
        refuse_unless_allowed(principal, name)
        return await self._automatic.adopt(name, principal)

    def _stored(self, name: str, principal: Principal, *, or_instance: bool = False) -> Model:
        instance, slash, _ = name.partition("/")
        if or_instance and slash and self._models.find(instance) is not None:
            name = instance
        return find_model(self._models, name, principal, self._automatic.near(name))
