"""A dry run of a start as a person reads it."""

from __future__ import annotations

import shlex

import typer

from ostler.cli import human
from ostler.cli.client import Json
from ostler.cli.failures import DOES_NOT_FIT, OTHER
from ostler.cli.output import note, paint, print_facts, print_json


def show_dry_run(plan: Json, *, json: bool) -> None:
    """Print it. Ends the command with exit code 3 where the model cannot fit, 1 for any other error."""
    if json:
        print_json(plan)
    else:
        _show(plan)
    if plan.get("fits") is False:
        raise typer.Exit(DOES_NOT_FIT)
    if plan.get("errors"):
        raise typer.Exit(OTHER)


def _show(plan: Json) -> None:
    print(f"  {paint('What exactly would run', 'bold')}")
    image = (plan.get("spec") or {}).get("image")
    words = [f"container of {image}:"] if image else []
    print("   ", *words, shlex.join(map(str, plan.get("argv") or ())))
    print_facts(
        "Memory (needed of what is free)", [(str(d["id"]), _device(d)) for d in plan.get("fit") or ()]
    )
    print_facts("Would leave", [(str(e["model"]), str(e["reason"])) for e in plan.get("evictions") or ()])
    expected = human.duration(plan.get("expected_load_s"))
    print_facts("Loading", [("takes", f"about {expected}" if expected else "not known yet")])
    for warning in plan.get("warnings") or ():
        note(f"Warning: {warning}")
    for error in plan.get("errors") or ():
        note(f"Error: {error}")


def _device(device: Json) -> str:
    need, free = human.size(device["need_bytes"]), human.size(device["available_bytes"])
    if not device["need_bytes"]:
        return f"nothing of {free}"
    return f"{need} of {free}: {'fits' if device['fits'] else 'does not fit now'}"
