"""What the commands have in common: options, completion of names, and the way to the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ostler.cli.client import Client
from ostler.cli.connection import Server, data_dir, find_running, normal_url
from ostler.cli.failures import USAGE, CommandFailed

COMPLETION_TIMEOUT_S = 0.5


def complete_models(incomplete: str) -> list[str]:
    """Names of models for the shell's Tab key. Quick, silent, and never starts a server."""
    import os

    named = os.environ.get("OSTLER_URL")
    try:
        running = None if named else find_running(data_dir())
        url = normal_url(named) if named else running.url if running else None
        if url is None:
            return []
        client = Client(url, os.environ.get("OSTLER_API_KEY"))
        found = client.get("/models", limit=200, search=incomplete or None, timeout_s=COMPLETION_TIMEOUT_S)
    except CommandFailed:
        return []
    return [str(item["name"]) for item in found["items"]]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def lists_alone(ctx: typer.Context, json: bool) -> bool:
    """True where a group like `ostler keys` stands alone and therefore lists.

    Raises CommandFailed for `ostler keys --json list`, where the flag would have no effect.
    """
    if ctx.invoked_subcommand is None:
        return True
    if json:
        command = f"{ctx.command_path} {ctx.invoked_subcommand}"
        raise CommandFailed("--json stands before the command", hint=f"{command} ... --json", exit_code=USAGE)
    return False


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model's name.", autocompletion=complete_models)
]
Target = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name, a path or org/repo:QUANT.", autocompletion=complete_models),
]

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the server (OSTLER_URL).", hidden=True),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="API key (OSTLER_API_KEY).", hidden=True)
]
NoStartOption = Annotated[
    bool, typer.Option("--no-start", help="Fail where no server runs (OSTLER_NO_START).", hidden=True)
]


def with_server(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function whose first parameter is `server: Server`.

    The command takes `--url`, `--key` and `--no-start` (hidden there, shown by `ostler --help`), so
    that they may stand before or after its name.
    """
    signature = inspect.signature(function, eval_str=True)
    own = [p for name, p in signature.parameters.items() if name != "server"]
    added = [
        inspect.Parameter("url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=UrlOption),
        inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=KeyOption),
        inspect.Parameter(
            "no_start", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=NoStartOption
        ),
    ]

    def command(**values: Any) -> None:
        ctx: typer.Context = values.pop("ctx")
        url, key, no_start = values.pop("url"), values.pop("key"), values.pop("no_start")
        told: Server = ctx.find_root().obj or Server()
        server = Server(url or told.url, key or told.key, no_start or told.no_start)
        function(server, **values)

    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *added]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__module__ = function.__module__
    return command
