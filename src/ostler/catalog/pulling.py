"""Pulling a predefined alias: its file is fetched, and when that is here the model of it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.core.principals import Principal, Role
from ostler.downloads.service import Downloads
from ostler.jobs.records import Job
from ostler.models.predefined import Predefined, PredefinedAlias
from ostler.models.records import Model
from ostler.models.service import Models, NameTaken

KIND = "predefined"


class PredefinedPulls:
    """Registers what is done at the end of such downloads when it is made."""

    def __init__(self, predefined: Predefined, downloads: Downloads, models: Models) -> None:
        self._predefined = predefined
        self._downloads = downloads
        self._models = models
        downloads.add_finisher(KIND, self._make_model)

    async def pull(self, name: str, principal: Principal) -> Job:
        """Queue the download, or return the open one. The model is made also after a restart of the server.

        Raises PredefinedNotFound, NameTaken where another model has the name, what Downloads.pull raises.
        """
        principal.require(Role.POWER_USER, "download models")
        alias = await self._predefined.get(name)
        self._refuse_other(alias)
        then = {"kind": KIND, "key": name, "alias": alias.to_json()}
        return await self._downloads.pull(alias.spec, principal=principal, then=then)

    async def _make_model(self, job: Job, result: Mapping[str, Any]) -> Mapping[str, Any]:
        alias = PredefinedAlias(**job.request["then"]["alias"])
        there = self._refuse_other(alias)
        if there is None:
            asker = Principal(job.actor, Role.POWER_USER)  # who asked had this role when they did
            there = await self._models.create(alias.new_model(result["commit"]), asker)
        return {"model": there.name}

    def _refuse_other(self, alias: PredefinedAlias) -> Model | None:
        """The model of this alias where there is one. Raises NameTaken."""
        there = self._models.find(alias.name)
        if there is not None and (there.source.repo, there.source.file) != (alias.repo, alias.file):
            raise NameTaken(
                f"the name {alias.name} belongs to another model ({there.source.label})",
                hint="Rename or delete that one, or pull the file itself by repo and file name.",
                model=there.name,
            )
        return there
