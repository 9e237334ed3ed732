"""A dry run of a start as a person reads it."""

from __future__ import annotations

import json as json_module
import shlex
from collections.abc import Iterable, Sequence

import typer

from ostler.cli import human
from ostler.cli.client import Client, Json, model_path
from ostler.cli.failures import DOES_NOT_FIT, OTHER
from ostler.cli.output import note, paint, print_facts, print_json
from ostler.cli.targets import known_model

HUB_TIMEOUT_S = 120.0
_COLOURS = {"error": "red", "warning": "yellow", "info": "dim"}


def ask_dry_run(client: Client, text: str, ignore: Sequence[str]) -> Json:
    """The dry run of a start of what a person means. Nothing is pulled and no model is made for it."""
    known, meant = known_model(client, text)
    body: Json = {"ignore": list(ignore)}
    if known is not None:
        return client.post(model_path(known["name"], "dry-run"), body)
    source = {"path": meant.path} if meant.path is not None else {"hub": meant.hub}
    return client.post("/dry-run", {"source": source, **body}, timeout_s=HUB_TIMEOUT_S)


def show_dry_run(plan: Json, *, json: bool) -> None:
    """Print it. Ends the command with exit code 3 where the model cannot fit, 1 for any other error."""
    if json:
        print_json(plan)
    else:
        _show(plan)
    errors = [found["code"] for found in plan["findings"] if found["severity"] == "error"]
    if errors:
        raise typer.Exit(DOES_NOT_FIT if "does_not_fit" in errors else OTHER)


def chosen_lines(chosen: Iterable[Json]) -> list[tuple[str, str]]:
    """What was chosen, as lines of a section: `context_length = 8192` and why."""
    return [(f"{line['name']} = {json_module.dumps(line['value'])}", line["reason"]) for line in chosen]


def _show(plan: Json) -> None:
    if plan["argv"]:
        print(f"  {paint('What exactly would run', 'bold')}")
        image = (plan["spec"] or {}).get("image")
        words = [f"container of {image}:"] if image else []
        print("   ", *words, f"{shlex.join(map(str, plan['argv']))}\n")
    print_facts("Chosen, as the recipe leaves it open", chosen_lines(plan["chosen"]))
    print_facts("Memory (needed of what is free)", [(str(d["id"]), _device(d)) for d in plan["fit"] or ()])
    print_facts("Would leave", [(str(e["model"]), str(e["reason"])) for e in plan["evictions"]])
    expected = human.duration(plan["expected_load_s"])
    print_facts("Loading", [("takes", f"about {expected}" if expected else "not known yet")])
    if disk := plan["disk"]:
        room = f"{human.size(disk['needed_bytes'])} to download, {human.size(disk['free_bytes'])} free"
        print_facts("Disk", [("needed", room if disk["enough"] else f"{room}: not enough")])
    for found in plan["findings"]:
        _tell(found)


def _tell(found: Json) -> None:
    severity = str(found["severity"])
    word = paint(severity.capitalize(), _COLOURS[severity])
    note(f"{word}: {found['message']} [{found['code']}]")
    if found["fix"]:
        note(f"  Try: {found['fix']}")


def _device(device: Json) -> str:
    need, free = human.size(device["need_bytes"]), human.size(device["available_bytes"])
    if not device["need_bytes"]:
        return f"nothing of {free}"
    headroom = device["headroom_bytes"]
    left = f"{human.size(headroom)} left then" if headroom >= 0 else f"{human.size(-headroom)} missing"
    return f"{need} of {free}: {'fits' if device['fits'] else 'does not fit now'}, {left}"
