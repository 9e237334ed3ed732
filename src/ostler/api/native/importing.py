"""Taking over what another system keeps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr

from ostler.api.dialects.cortex.models import record_of, runtime_of_new
from ostler.api.dialects.llamactl.records import stored_model_of
from ostler.api.door import needs, router
from ostler.api.native.files import absolute_path
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Out
from ostler.core.principals import Role
from ostler.importing.report import Outcome, Report
from ostler.models.records import NewModel

routes = router("import")


class CortexIn(Body):
    """Where Cortex's database is; nothing is changed in it. `dry_run`: nothing is changed here either."""

    database_url: SecretStr = Field(examples=["postgresql://cortex:PASSWORD@localhost:15432/cortex"])
    dry_run: bool = False


class LlamactlIn(Body):
    """Where llamactl's files are, on this machine; nothing is changed in them.

    Without `database` it is where the configuration says, or where llamactl keeps it. `environment` are the
    variables that llamactl ran with: its own (`LLAMACTL_*`), and those that the configuration names.
    """

    database: str | None = Field(
        None, max_length=4_096, examples=["/home/me/.local/share/llamactl/llamactl.db"]
    )
    config: str | None = Field(None, max_length=4_096, examples=["/home/me/.config/llamactl/config.yaml"])
    environment: dict[str, SecretStr] = Field(default_factory=dict, max_length=1_000)
    dry_run: bool = False


class ItemOut(Out):
    """One thing of the other system. `note` says why it was not taken, or what is left to do."""

    kind: str
    name: str
    outcome: Outcome
    note: str | None


class ReportOut(Out):
    """What was taken (with `dry_run`: would be), what was here before, and what could not be taken."""

    dry_run: bool
    taken: int
    there: int
    refused: int
    items: list[ItemOut]


class BodhiIn(Body):
    """BodhiApp's folder, as the server sees it; nothing is changed in it. `dry_run`: nor is anything here."""

    home: str = Field(max_length=4_096, examples=["/home/me/.cache/bodhi"])
    dry_run: bool = False


@routes.post("/import/cortex", response_model=ReportOut, **needs(Role.ADMIN))
async def import_cortex(rooms: Rooms, who: Who, body: CortexIn) -> Any:
    """Take over models, keys, people, organisations, upstreams, recipes and conversations of a Cortex.

    Keys and passwords go on working; every model is stopped. What was taken before is passed over.
    """
    url = body.database_url.get_secret_value()
    runtime = await runtime_of_new(rooms)  # asked once, not for each model

    async def new_model_of(values: dict[str, Any]) -> NewModel:
        return await record_of(rooms, {**values, "runtime": runtime})

    report = await rooms.cortex_import.take(url, new_model_of, who, dry_run=body.dry_run)
    return _report_out(report)


@routes.post("/import/bodhi", response_model=ReportOut, **needs(Role.ADMIN))
async def import_bodhi(rooms: Rooms, who: Who, body: BodhiIn) -> Any:
    """Take over aliases, predefined aliases and settings of a BodhiApp; what was taken is passed over."""
    return _report_out(await rooms.bodhi_import.take(absolute_path(body.home), who, dry_run=body.dry_run))


@routes.post("/import/llamactl", response_model=ReportOut, **needs(Role.ADMIN))
async def import_llamactl(rooms: Rooms, who: Who, body: LlamactlIn) -> Any:
    """Take over instances, keys and settings of a llamactl.

    Keys go on working; every instance is stopped here. What was taken before is passed over.
    """
    environ = {name: value.get_secret_value() for name, value in body.environment.items()}
    config, database = (Path(text) if text else None for text in (body.config, body.database))
    make = partial(stored_model_of, rooms)
    report = await rooms.llamactl_import.take(config, database, environ, make, who, dry_run=body.dry_run)
    return _report_out(report)


def _report_out(report: Report) -> dict[str, Any]:
    counts = {outcome.value: report.count(outcome) for outcome in Outcome}
    return {"dry_run": report.dry_run, **counts, "items": report.items}
