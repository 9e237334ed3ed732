"""Models at work: start, stop, restart, ps, logs."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from ostler.cli import human
from ostler.cli.client import Json, model_path
from ostler.cli.connection import Server
from ostler.cli.dry_run import ask_dry_run, show_dry_run
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.options import JsonFlag, ModelName, Target, complete_models, with_server
from ostler.cli.output import clean, note, print_json, print_table, state
from ostler.cli.starting import START_TIMEOUT_S, start_and_watch
from ostler.cli.targets import resolve_model
from ostler.core.comma_lists import comma_list

STOP_TIMEOUT_S = 600.0

OptionalModel = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="The model's name.", autocompletion=complete_models)
]


@with_server
def start(
    server: Server,
    model: Target,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, whether it fits and who would leave.")
    ] = False,
    ignore_fit: Annotated[
        bool, typer.Option("--ignore-fit", help="Start it also where its memory is not there.")
    ] = False,
    ignore: Annotated[
        str | None,
        typer.Option(
            "--ignore", metavar="CODE,...", help="Start it in spite of these errors of its dry run."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="Where it runs from now on: process, or docker for a container."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Start a model and say each state as it becomes true.

    Exit code 3 where it does not fit into the memory of this machine.

    Example: ostler start my-model
    """
    client = server.client()
    ignored = comma_list(ignore)
    ignored += ["does_not_fit"] if ignore_fit else []
    if runtime:
        found = resolve_model(client, model)
        model = found["name"]
        if runtime != found["runtime"]:
            client.patch(model_path(model), {"runtime": runtime})
    if dry_run:
        show_dry_run(ask_dry_run(client, model, ignored), json=json)
        return
    name = resolve_model(client, model)["name"]
    if not wait:
        view = client.post(model_path(name, "start"), {"wait": False, "ignore": ignored})
    else:
        say = (lambda _: None) if json else _say
        view = start_and_watch(client, name, say=say, ignore=ignored)
    if json:
        print_json(view)
    elif not wait:
        print(f"{name} is starting. See how far it is: ostler ps")
    else:
        print(f"{name} is running. Chat with it: ostler run {quote(name)}")


def _say(text: str) -> None:
    note(text)


@with_server
def stop(
    server: Server,
    model: OptionalModel = None,
    everything: Annotated[bool, typer.Option("--all", help="Stop every model.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for requests in flight.")] = False,
) -> None:
    """Stop a model; requests in flight are finished first.

    Example: ostler stop my-model
    """
    if (model is None) == (not everything):
        raise CommandFailed(
            "say which model to stop, or --all", hint="See what runs: ostler ps", exit_code=USAGE
        )
    client = server.client()
    if model is None:
        names = sorted(str(item["model_name"]) for item in client.get("/instances", active=True)["items"])
        client.post("/instances/stop-all", timeout_s=STOP_TIMEOUT_S)
        print(f"Stopped {', '.join(names)}." if names else "Nothing was running.")
        return
    client.post(model_path(model, "stop"), {"now": now}, timeout_s=STOP_TIMEOUT_S)
    print(f"Stopped {model}.")


@with_server
def restart(server: Server, model: ModelName) -> None:
    """Stop and start a model; a changed recipe takes effect.

    Example: ostler restart my-model
    """
    client = server.client()
    client.post(model_path(model, "restart"), timeout_s=START_TIMEOUT_S)
    print(f"{model} is running.")


@with_server
def ps(server: Server, json: JsonFlag = False) -> None:
    """List the models that run, and until when.

    SIZE is the memory that the engine was seen to hold, ESTIMATE what was expected before its start. A model
    that shares the engine of another says so there.

    Example: ostler ps
    """
    client = server.client()
    found = client.get("/instances", limit=200)
    if json:
        print_json(found)
        return
    active = [item for item in found["items"] if item["state"] != "stopped"]
    if not active:
        note("Nothing runs. Start a model with: ostler run MODEL   (see them with: ostler list)")
        return
    columns = ("NAME", "ID", "SIZE", "ESTIMATE", "ENGINE", "PROCESSOR", "STATE", "INFLIGHT", "UNTIL")
    no_gpu = all(device["kind"] == "cpu" for device in client.get("/devices")["items"])
    print_table(columns, (_instance_row(item, no_gpu) for item in active))


def _instance_row(item: Json, no_gpu: bool) -> tuple[str, ...]:
    size = human.size(item.get("memory_bytes"))
    return (
        item["model_name"],
        str(item["model_id"]),
        f"of {item['shares']}" if item.get("shares") else size,
        human.size(item.get("estimated_bytes")),
        item["engine"],
        _processor(item, no_gpu),
        state(item["state"]) + (" (drift)" if item.get("drift") else ""),
        str(item.get("in_flight", 0)),
        _until(item),
    )


def _processor(item: Json, no_gpu: bool) -> str:
    """The devices that it was given; where it was given none in particular, the CPU if there is no more."""
    given = ", ".join(item.get("devices") or ())
    return given or ("CPU" if no_gpu and item["state"] in ("loading", "running") else "-")


def _until(item: Json) -> str:
    if item["state"] == "stopping":
        return "Stopping..."
    if item["state"] != "running":
        return "-"
    return human.relative(item["expires_at"]) if item.get("expires_at") else "Forever"


@with_server
def logs(
    server: Server,
    model: ModelName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many last lines.")] = 100,
) -> None:
    """Print what a model's engine has logged.

    Example: ostler logs my-model -f
    """
    with server.client().lines(model_path(model, "logs"), tail=tail, follow=follow) as lines:
        for line in lines:
            print(clean(line), flush=follow)
