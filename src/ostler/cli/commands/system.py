"""The system: inspect a file, doctor, version."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.failures import CommandFailed
from ostler.cli.inspection import inspect_here, print_inspected, refuse_broken
from ostler.cli.options import JsonFlag, with_server
from ostler.cli.output import paint, print_json


def inspect(
    path: Annotated[
        str, typer.Argument(metavar="PATH|REPO[:QUANT]", help="A GGUF file, a safetensors folder, or a repo.")
    ],
    json: JsonFlag = False,
) -> None:
    """Read what a model file says of itself. Needs no server and changes nothing.

    Of a repo on the hub only the headers are read, a few hundred KB.
    Example: ostler inspect qwen3-8b-Q4_K_M.gguf
    """
    found = inspect_here(path)
    if json:
        print_json(found)
    else:
        print_inspected(found)
    refuse_broken(found)


@with_server
def version(server: Server, json: JsonFlag = False) -> None:
    """Print the version, and the server's where one runs."""
    from ostler import __version__

    try:
        client = server.client(start=False)
        running: Json | None = client.get("/system", timeout_s=2.0)
        url: str | None = client.url
    except CommandFailed:
        running, url = None, None
    told = {
        "version": __version__,
        "server": {"url": url, "version": running.get("version")} if running else None,
    }
    if json:
        print_json(told)
    else:
        print(f"ostler {__version__}")
        if running:
            print(f"server {running.get('version')} at {url}")


@with_server
def doctor(server: Server, json: JsonFlag = False) -> None:
    """Check this machine and say what to repair.

    Looks at Python, data folder, disk, database, engines, port, GPUs, server and hub.
    Exit code 0 when everything needed is there, else 1.
    """
    from ostler.cli.checkup import check_all

    checks = check_all(server)
    if json:
        print_json({"ok": all(c.level != "failed" for c in checks), "checks": [c.to_json() for c in checks]})
    else:
        colours = {"ok": "green", "warning": "yellow", "failed": "red"}
        for check in checks:
            print(f"{paint(f'{check.level:<8}', colours[check.level])} {check.name:<12} {check.found}")
            if check.hint:
                print(f"{'':<8} {'':<12} Try: {check.hint}")
    if any(check.level == "failed" for check in checks):
        raise typer.Exit(1)
