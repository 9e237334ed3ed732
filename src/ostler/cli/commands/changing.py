"""Changing what a model is made of, after it was created."""

from __future__ import annotations

from shlex import quote
from typing import Annotated, Any

import typer

from ostler.cli.client import Json, model_path
from ostler.cli.commands.models import parse_option
from ostler.cli.connection import Server
from ostler.cli.options import JsonFlag, ModelName, with_server
from ostler.cli.output import print_json


@with_server
def set_options(
    server: Server,
    model: ModelName,
    options: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Engine options; KEY= takes one out again.")
    ],
    json: JsonFlag = False,
) -> None:
    """Set engine options of a model. What is left out is chosen to fit the machine; what is set stays.

    Example: ostler set my-model context_length=16384 kv_cache_type=q8_0
    """
    wanted: dict[str, Any] = dict(map(parse_option, options))
    changes = {name: None if value == "" else value for name, value in wanted.items()}
    changed = server.client().patch(model_path(model), {"options": changes})
    if json:
        print_json(changed)
        return
    print(f"Changed {changed['name']}. {_how_to_go_on(changed)}")


def _how_to_go_on(changed: Json) -> str:
    name = changed["name"]
    if changed.get("state") in ("running", "loading", "starting"):
        return f"It runs on as it was; take it up with: ostler restart {quote(name)}"
    return f"Start it with: ostler start {quote(name)}"
