"""Models on paper: list, show, add, create, copy, remove."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from ostler.cli import human
from ostler.cli.client import Client, Json, model_path
from ostler.cli.connection import Server
from ostler.cli.dry_run import chosen_lines
from ostler.cli.failures import NOT_ALLOWED, USAGE, CommandFailed
from ostler.cli.footprint import measured_beside, memory_facts
from ostler.cli.inspection import inspect_here, print_inspected, refuse_broken
from ostler.cli.options import JsonFlag, ModelName, with_server
from ostler.cli.output import is_terminal, note, print_facts, print_json, print_table, state
from ostler.cli.targets import command_from_here, file_source, new_model_from_path, what_is_meant


@with_server
def list_models(
    server: Server,
    search: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Only names that hold this.")] = None,
    files: Annotated[bool, typer.Option("--files", help="List the model files on disk instead.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the models (also: ls).

    Example: ostler list
    """
    client = server.client()
    found = client.every("/files" if files else "/models", search=search, sort="name")
    if json:
        print_json(found)
    elif not found["items"]:
        _say_empty(search, files)
    elif files:
        print_table(("NAME", "SIZE", "QUANT", "LAYOUT", "PATH"), map(_file_row, found["items"]))
    else:
        print_table(
            ("NAME", "ID", "SIZE", "MODIFIED", "QUANT", "CTX", "STATE"), map(_model_row, found["items"])
        )


def _say_empty(search: str | None, files: bool) -> None:
    what = "model files" if files else "models"
    if search:
        note(f"No {what} whose name holds {search!r}. See all with: ostler list{' --files' if files else ''}")
    else:
        note(f"No {what} yet. Get one with: ostler pull org/repo:Q4_K_M   or: ostler add PATH")


def _model_row(model: Json) -> tuple[str, ...]:
    facts = file_facts(model)
    context = (model.get("options") or {}).get("context_length") or facts.get("context_length")
    return (
        model["name"],
        str(model["id"] or "auto"),
        human.size(facts.get("size_bytes")),
        human.relative(model.get("updated_at")),
        facts.get("quantization") or "-",
        str(context or "-"),
        state(model.get("state")),
    )


def _file_row(item: Json) -> tuple[str, ...]:
    facts = item.get("facts") or {}
    return (
        item["name"],
        human.size(item.get("size_bytes")),
        facts.get("quantization") or "-",
        item.get("layout") or "-",
        str(item.get("path")),
    )


def file_facts(model: Json) -> Json:
    """What is known of a model's files: header facts and size as one flat mapping."""
    file_set = model.get("file_set") or {}
    facts = {**(file_set.get("facts") or {})}
    for name in ("size_bytes", "quantization", "context_length", "path"):
        if (value := file_set.get(name) or model.get(name)) is not None:
            facts[name] = value
    return facts


@with_server
def show(server: Server, model: ModelName, json: JsonFlag = False) -> None:
    """Show what a model is, where its files are and how it runs.

    Of a file here, or a repo on the hub that was not pulled: what the headers say.
    Example: ostler show my-model
    """
    client = server.client()
    meant = what_is_meant(client, model)
    if meant.model is not None:
        found, show_it = meant.model, print_model
    elif meant.path is not None:
        found, show_it = inspect_here(meant.path), print_inspected
    else:
        found, show_it = client.get("/hub/inspect", spec=str(meant.hub)), print_inspected
    print_json(found) if json else show_it(found)
    refuse_broken(found)


def print_model(found: Json) -> None:
    """The sections Model, Source, Options, Container, Policy and Instance; empty ones are left out."""
    facts = file_facts(found)
    print_facts("Model", _model_facts(found, facts))
    source = found.get("source") or {}
    files = facts.get("path") if facts.get("path") != source.get("path") else None
    told = [(name, _text(value)) for name, value in source.items()]
    print_facts("Source", [*told, ("files", files), ("problem", found.get("files_problem"))])
    options = [(name, _text(value)) for name, value in (found.get("options") or {}).items()]
    if extra := found.get("extra_args"):
        options.append(("extra arguments", " ".join(extra)))
    print_facts("Options", options)
    print_facts("Chosen to fit this machine (set your own: ostler set NAME KEY=VALUE)", _chosen(found))
    wishes = found.get("runtime_options") or {}
    print_facts("Container", [(name, _text(value)) for name, value in wishes.items()])
    defaults = found.get("request_defaults") or {}
    print_facts("Request defaults", [(name, _text(value)) for name, value in defaults.items()])
    policy = found.get("policy") or {}
    print_facts("Policy", [(name, _text(value)) for name, value in policy.items() if value != []])
    instance = found.get("instance") or {}
    if instance.get("state", "stopped") != "stopped":
        print_facts("Instance", _instance_facts(instance))
    else:
        print_facts("Instance", [("state", found.get("state") or "stopped")])
    print_facts("Memory and loading", memory_facts(found.get("memory") or {}))


def _chosen(found: Json) -> list[tuple[str, str]]:
    why_not = found.get("nothing_chosen")
    return chosen_lines(found.get("chosen") or ()) or ([("nothing", why_not)] if why_not else [])


_AUTOMATIC = "yes: its files are in a cache; it is stored when it is first used"


def _model_facts(found: Json, facts: Json) -> list[tuple[str, str | None]]:
    parameters = facts.get("parameters")
    return [
        ("name", found["name"]),
        ("automatic", _AUTOMATIC if found.get("automatic") else None),
        ("aliases", ", ".join(found.get("aliases") or ()) or None),
        ("description", found.get("description") or None),
        ("architecture", facts.get("architecture")),
        ("parameters", human.count(parameters) if parameters else None),
        ("quantization", facts.get("quantization")),
        ("context length", _text(facts.get("context_length"))),
        ("size", human.size(facts["size_bytes"]) if facts.get("size_bytes") else None),
        ("capabilities", ", ".join(facts.get("capabilities") or ()) or None),
        ("engine", f"{found.get('engine')} on {found.get('runtime')}"),
        ("engine command", found.get("engine_command")),
    ]


def _instance_facts(instance: Json) -> list[tuple[str, str | None]]:
    memory = instance.get("memory_bytes")
    return [
        ("state", state(instance["state"])),
        ("reason", instance.get("reason")),
        ("try", instance.get("hint")),
        ("ready", human.relative(instance["ready_at"]) if instance.get("ready_at") else None),
        ("load time", human.duration(instance.get("load_seconds")) or None),
        ("memory", measured_beside(memory, instance.get("estimated_bytes")) if memory else None),
        ("requests in flight", _text(instance.get("in_flight"))),
        ("restarts", _text(instance.get("restarts"))),
        ("shares the engine of", instance.get("shares")),
        ("shared with", ", ".join(instance.get("shared_with") or ()) or None),
        ("drift", "yes: ostler restart applies the changed recipe" if instance.get("drift") else None),
    ]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json_module.dumps(value, ensure_ascii=False)


@with_server
def add(
    server: Server,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A GGUF file or a safetensors folder.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the model; else the file's.")] = None,
    json: JsonFlag = False,
) -> None:
    """Take in a model file where it lies; nothing is copied.

    Example: ostler add ~/models/qwen3-8b-Q4_K_M.gguf
    """
    client = server.client()
    made = new_model_from_path(client, path, name)
    if json:
        print_json(made)
    else:
        print(f"Added {made['name']}. Chat with it: ostler run {quote(made['name'])}")


@with_server
def create(
    server: Server,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new model.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="SPEC|PATH", help="A file, or org/repo:QUANT of the hub.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An engine option; may be repeated."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--command", help="A llama-server or vllm command line to take options from."),
    ] = None,
    engine_command: Annotated[
        str | None, typer.Option("--engine-command", help="The program that serves it (admins only).")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", help="Where it runs: process, or docker for a container.")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="The image of its container (admins only).")
    ] = None,
    runtime_option: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime-option", "-r", metavar="KEY=VALUE", help="A wish for its container; may be repeated."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A recipe in JSON, as show --json prints it.")
    ] = None,
    description: Annotated[str | None, typer.Option("--description", help="A line about it.")] = None,
    json: JsonFlag = False,
) -> None:
    """Create a model: a name for a source with its options.

    Example: ostler create coder --from org/repo:Q4_K_M -o context_length=8192
    """
    body = _read_recipe(file) if file else {}
    body["name"] = name
    if source:
        body["source"] = file_source(source) or {"hub": source}
    if option:
        body["options"] = {**(body.get("options") or {}), **dict(map(parse_option, option))}
    if command:
        body["command_line"] = command_from_here(command)
    if description is not None:
        body["description"] = description
    if engine_command is not None:
        body["engine_command"] = engine_command
    wishes = dict(map(parse_option, runtime_option or ())) | ({"image": image} if image else {})
    if wishes:
        body["runtime_options"] = {**(body.get("runtime_options") or {}), **wishes}
    if runtime or wishes:
        body["runtime"] = runtime or "docker"
    if "source" not in body and not command:
        raise CommandFailed(
            "a model needs a source",
            hint=f"ostler create {quote(name)} --from PATH, or --from org/repo:Q4_K_M",
            exit_code=USAGE,
        )
    made = server.client().post("/models", body)
    if json:
        print_json(made)
    else:
        print(f"Created {made['name']}. Start it with: ostler start {quote(made['name'])}")


_RECIPE = (
    "source",
    "engine",
    "runtime",
    "runtime_options",
    "engine_command",
    "description",
    "task",
    "aliases",
    "options",
    "extra_args",
    "env",
    "request_defaults",
    "policy",
)


def _read_recipe(path: Path) -> Json:
    try:
        told = json_module.loads(path.read_text())
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read ({error.strerror})", exit_code=USAGE) from error
    except ValueError as error:
        raise CommandFailed(f"{path} is not JSON: {error}", exit_code=USAGE) from error
    if not isinstance(told, dict):
        raise CommandFailed(f"{path} must hold one JSON object", exit_code=USAGE)
    return {name: value for name, value in told.items() if name in _RECIPE and value is not None}


def parse_option(text: str) -> tuple[str, Any]:
    """`context_length=8192` as a name and a JSON value; what is not JSON is a text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandFailed(
            f"{text!r} is not KEY=VALUE", hint="For example: -o context_length=8192", exit_code=USAGE
        )
    try:
        return name, json_module.loads(value)
    except ValueError:
        return name, value


@with_server
def copy(
    server: Server,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The model to copy.")],
    target: Annotated[str, typer.Argument(metavar="NEW", help="Name of the copy.")],
    json: JsonFlag = False,
) -> None:
    """Copy a model's recipe under another name; the files are shared.

    Example: ostler cp my-model my-model-long
    """
    made = server.client().post(model_path(source, "copy"), {"name": target})
    if json:
        print_json(made)
    else:
        print(f"Copied {source} to {made.get('name', target)}")


@with_server
def remove(
    server: Server,
    model: ModelName,
    files: Annotated[
        bool, typer.Option("--files", help="Delete its files too, where Ostler put them there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model from the list. Its files stay, unless --files is given.

    Example: ostler rm my-model
    """
    client = server.client()
    found = client.get(model_path(model))
    if files:
        _remove_with_files(client, found, yes)
        return
    client.delete(model_path(found["name"]))
    print(f"Removed {found['name']}. {_kept(found)}")


def _kept(found: Json) -> str:
    path = file_facts(found).get("path") or (found.get("source") or {}).get("path")
    return f"Its files were kept: {path}" if path else "It had no files on this disk."


def _remove_with_files(client: Client, found: Json, yes: bool) -> None:
    name, file_set = found["name"], found.get("file_set") or {}
    if not file_set.get("id"):
        client.delete(model_path(name))
        print(f"Removed {name}. It had no files on this disk.")
        return
    if file_set.get("layout") is None:
        raise CommandFailed(
            f"{file_set.get('path')} is not in a folder that Ostler fills, so it is yours to delete",
            hint=f"ostler rm {quote(name)} removes the model and keeps the file",
            exit_code=NOT_ALLOWED,
        )
    sharing = _others_with(client, found)
    if sharing:
        note(f"The same files serve {', '.join(sharing)}, which cannot start without them.")
    question = f"Delete {human.size(file_set.get('size_bytes'))} at {file_set.get('path')}?"
    if not yes and not confirm(question):
        raise CommandFailed("nothing was deleted", hint=f"ostler rm {quote(name)} keeps the files")
    deleted = client.delete(f"/files/{file_set['id']}")
    if found["id"]:  # an automatic one went with its files
        client.delete(model_path(name))
    freed = deleted.get("freed_bytes", file_set.get("size_bytes"))
    print(f"Removed {name} and its files ({human.size(freed)} freed).")


def _others_with(client: Client, found: Json) -> list[str]:
    """The names of other models with the same files."""
    path = file_facts(found).get("path")
    others = (item for item in client.every("/models", automatic=False)["items"] if item["id"] != found["id"])
    return [str(item["name"]) for item in others if file_facts(item).get("path") == path]


def confirm(question: str) -> bool:
    """Ask a person. Raises CommandFailed where there is no terminal to ask at."""
    import sys

    if not is_terminal(sys.stdin):
        raise CommandFailed(
            f"{question} Nobody is here to answer.", hint="Say --yes to go on.", exit_code=NOT_ALLOWED
        )
    return typer.confirm(question)
