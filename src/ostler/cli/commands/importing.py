"""`ostler import`: take over what another system keeps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
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
    _show(report, json=json, empty="Cortex's database is empty; there is nothing to take.")


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
    _show(report, json=json, empty="The folder holds no aliases and no settings; there is nothing to take.")


@import_app.command("llamactl")
@with_server
def llamactl(
    server: Server,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="LLAMACTL_CONFIG_PATH",
            help="llamactl's configuration. By default looked for where llamactl looks. "
            "Environment: LLAMACTL_CONFIG_PATH.",
        ),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database", metavar="FILE", help="Its database. By default as the configuration says."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
    json: JsonFlag = False,
) -> None:
    """Take over a llamactl: instances, keys, settings.

    Its files are read where the server runs, and nothing is changed in them; the variables LLAMACTL_* are
    read here. Keys go on working; what was taken before is passed over.
    Example: ostler import llamactl --config ~/.config/llamactl/config.yaml --dry-run
    """
    config = config or next((path for path in _places() if path.is_file()), None)
    body = {
        "config": None if config is None else str(config.absolute()),
        "database": None if database is None else str(database.absolute()),
        "environment": _environment(config),
        "dry_run": dry_run,
    }
    report = server.client().post("/import/llamactl", body, timeout_s=IMPORT_TIMEOUT_S)
    _show(report, json=json, empty="llamactl's database is empty; there is nothing to take.")


def _places() -> Iterator[Path]:
    """Where llamactl looks for its configuration, in its order."""
    yield from (Path("llamactl.yaml"), Path("config.yaml"))
    yield Path("~/.config/llamactl/config.yaml").expanduser()
    yield Path("/etc/llamactl/config.yaml")


def _environment(config: Path | None) -> dict[str, str]:
    """The variables that llamactl would see and that mean something to it: its own, and those it names."""
    named = {"HOME", "XDG_DATA_HOME"}
    if config is not None:
        with suppress(OSError, UnicodeDecodeError):  # the server says what is wrong with the file
            named |= set(re.findall(r"\$\{(\w+)", config.read_text()))
    return {name: text for name, text in os.environ.items() if name in named or name.startswith("LLAMACTL_")}


def _show(report: Json, *, json: bool, empty: str) -> None:
    if json:
        print_json(report)
        return
    if not report["items"]:
        note(empty)
        return
    print_table(("KIND", "NAME", "OUTCOME", "NOTE"), map(_row, report["items"]))
    verb = "would be taken" if report["dry_run"] else "taken"
    note(f"{report['taken']} {verb}, {report['there']} were here before, {report['refused']} not taken.")


def _row(item: Json) -> tuple[str, ...]:
    return (item["kind"], item["name"], _WORDS[item["outcome"]], item["note"] or "")


_WORDS = {"taken": "taken", "there": "here before", "refused": "NOT TAKEN"}
