"""A gateway's view of automatic models where no cache holds any."""

from __future__ import annotations

import builtins

from ostler.core.principals import Principal
from ostler.models.automatic import AutomaticModel
from ostler.models.index import ModelNotFound
from ostler.models.records import Model


class NothingCached:
    """No automatic models."""

    async def list(self) -> list[AutomaticModel]:
        return []

    async def find(self, name: str) -> AutomaticModel | None:
        return None

    async def adopt(self, name: str, principal: Principal) -> Model:
        raise ModelNotFound(f"there is no model {name!r}")

    def near(self, name: str) -> builtins.list[str]:
        return []
