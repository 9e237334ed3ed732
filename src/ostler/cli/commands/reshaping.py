"""`ostler merge` and `ostler split`: one GGUF made of its parts, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.options import JsonFlag, Target, with_server
from ostler.cli.output import print_json
from ostler.cli.pulling import follow
from ostler.cli.targets import absolute_path, file_source
from ostler.core.sizes import parse_size

To = Annotated[
    Path | None,
    typer.Option("--to", metavar="FOLDER", help="Where the result goes; by default Ostler's own folder."),
]
Name = Annotated[str | None, typer.Option("--name", help="The new file's name, without .gguf.")]


@with_server
def merge(server: Server, model: Target, to: To = None, name: Name = None, json: JsonFlag = False) -> None:
    """Make one GGUF file of a model's parts. The parts stay.

    Example: ostler merge ./big-00001-of-00003.gguf
    """
    _reshape(server, "merge", model, {}, to, name, json=json)


@with_server
def split(
    server: Server,
    model: Target,
    size: Annotated[str | None, typer.Option("--size", help="Most bytes of a part: 4GB, 2GiB.")] = None,
    tensors: Annotated[
        int | None, typer.Option("--tensors", min=1, help="Most tensors of a part, instead of --size.")
    ] = None,
    to: To = None,
    name: Name = None,
    json: JsonFlag = False,
) -> None:
    """Make parts of a GGUF in one file. The file stays.

    Example: ostler split ./big.gguf --size 20GB
    """
    if (size is None) == (tensors is None):
        raise CommandFailed(
            "say how large a part may be: either --size or --tensors",
            hint="For example: ostler split MODEL --size 20GB",
            exit_code=USAGE,
        )
    limit: Json = {"max_tensors": tensors} if size is None else {"max_bytes": _bytes(size)}
    _reshape(server, "split", model, limit, to, name, json=json)


def _bytes(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise CommandFailed(str(error), exit_code=USAGE) from None


def _reshape(
    server: Server, kind: str, model: str, more: Json, to: Path | None, name: str | None, *, json: bool
) -> None:
    body: Json = {**(file_source(model) or {"model": model}), **more}
    if to is not None:
        body["to"] = str(absolute_path(to))
    if name is not None:
        body["name"] = name
    client = server.client()
    job = client.post(f"/files/{kind}", body)
    ended = follow(client, job, retry=f"ostler jobs retry {job['id'][:8]}")
    result = ended["result"]
    if json:
        print_json(ended)
        return
    files = result["files"]
    made = "It was there already" if result["already_here"] else f"Made and compared, {kind} of {model}"
    print(f"{made}: {files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else ""))
    print(f"Serve it: ostler run {files[0]}")
