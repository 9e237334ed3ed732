"""`ostler import`: take over what another system keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.options import JsonFlag, with_server
from ostler.cli.output import note, print_json, print_table

IMPORT_TIMEOUT_S = 1_800.0

import_app = typer.Typer(
    help="Take over models, keys and people of another system.", no_args_is_help=True, rich_markup_mode=None
)


@import_app.command("cortex")
@with_server
def cortex(
    server: Server,
    database_url: Annotated[
        str,
        typer.Option(
            "--database-url",
            metavar="URL",
            envvar="CORTEX_DATABASE_URL",
            help="Cortex's PostgreSQL, as the server reaches it. Environment: CORTEX_DATABASE_URL.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
    json: JsonFlag = False,
) -> None:
    """Take over a Cortex: models, keys, people, organisations, upstreams, recipes, conversations.

    Its database is only read; keys and passwords go on working; what was taken before is passed over.
    Example: ostler import cortex --database-url postgresql://cortex:PASSWORD@localhost:15432/cortex
    """
    body = {"database_url": database_url, "dry_run": dry_run}
    report = server.client().post("/import/cortex", body, timeout_s=IMPORT_TIMEOUT_S)
    _tell(report, "Cortex's database is empty; there is nothing to take.", json)


@import_app.command("bodhi")
@with_server
def bodhi(
    server: Server,
    home: Annotated[
        Path,
        typer.Option(
            "--home",
            metavar="FOLDER",
            envvar="BODHI_HOME",
            help="BodhiApp's folder, on the server's machine. Environment: BODHI_HOME.",
        ),
    ] = Path("~/.cache/bodhi"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
    json: JsonFlag = False,
) -> None:
    """Take over a BodhiApp: aliases, its models.yaml, settings.

    The folder is only read; what was taken before is passed over. Model files stay in the Hugging Face
    cache, which both share. Example: ostler import bodhi --home ~/.cache/bodhi --dry-run
    """
    body = {"home": str(home.expanduser().absolute()), "dry_run": dry_run}
    report = server.client().post("/import/bodhi", body, timeout_s=IMPORT_TIMEOUT_S)
    _tell(report, "The folder holds no aliases and no settings; there is nothing to take.", json)


def _tell(report: Json, when_empty: str, json: bool) -> None:
    if json:
        print_json(report)
        return
    if not report["items"]:
        note(when_empty)
        return
    print_table(("KIND", "NAME", "OUTCOME", "NOTE"), map(_row, report["items"]))
    verb = "would be taken" if report["dry_run"] else "taken"
    note(f"{report['taken']} {verb}, {report['there']} were here before, {report['refused']} not taken.")


def _row(item: Json) -> tuple[str, ...]:
    return (item["kind"], item["name"], _WORDS[item["outcome"]], item["note"] or "")


_WORDS = {"taken": "taken", "there": "here before", "refused": "NOT TAKEN"}
