"""Devices that are not here: for planning, and for tests of who fits beside whom.

The setting `devices` names them: "2x24GiB" (two GPUs), "24GiB,8GiB" (two that differ), "cpu:64GiB"
(the host), together as "2x24GiB,cpu:64GiB"; or the path of a JSON file, a list of objects with
`id` ("cuda:0", "cpu"), `total_bytes` and, where they differ, `name` and `free_bytes`. What is not
free is taken by others. Where no host is named, it is the real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostler.core.errors import Invalid
from ostler.core.sizes import parse_size
from ostler.fit.devices import Device

_GPUS = re.compile(r"(?:(\d+)\s*x\s*)?(\d.*)")
MOST_GPUS = 64


class BadDevices(Invalid):
    """The setting `devices` names no set of devices."""

    hint = (
        'Write it as "2x24GiB,cpu:64GiB", or name a JSON file: [{"id": "cuda:0", "total_bytes": 25769803776}]'
    )


def pretended(text: str) -> list[Device]:
    """The devices that the setting describes, GPUs by index, then the host. Raises BadDevices."""
    path = Path(text).expanduser()
    try:
        found = _from_file(path) if text.endswith(".json") else _from_text(text)
    except (ValueError, TypeError, KeyError, OSError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BadDevices(f"the setting devices ({text}): {why}") from error
    ids = [device.id for device in found]
    if len(set(ids)) != len(ids):
        raise BadDevices(f"the setting devices ({text}): an id is there twice")
    return sorted(found, key=lambda device: device.kind == "cpu")


def _from_text(text: str) -> list[Device]:
    found: list[Device] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part.lower().startswith("cpu:"):
            found.append(_device("cpu", parse_size(part[4:])))
            continue
        match = _GPUS.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not a device")
        first = sum(device.kind == "cuda" for device in found)
        count = int(match[1] or 1)
        if first + count > MOST_GPUS:
            raise ValueError(f"more than {MOST_GPUS} GPUs")
        found += [_device(f"cuda:{first + n}", parse_size(match[2])) for n in range(count)]
    if not found:
        raise ValueError("it names no device")
    return found


def _from_file(path: Path) -> list[Device]:
    entries = json.loads(path.read_text())
    if not isinstance(entries, list):
        raise TypeError("the file must hold a list")
    return [_from_entry(entry) for entry in entries]


def _from_entry(entry: Mapping[str, Any]) -> Device:
    total = int(entry["total_bytes"])
    free = int(entry.get("free_bytes", total))
    return _device(str(entry["id"]), total, free, entry.get("name"))


def _device(device_id: str, total: int, free: int | None = None, name: str | None = None) -> Device:
    kind, _, index = device_id.partition(":")
    if device_id != "cpu" and not (kind == "cuda" and index.isdecimal()):
        raise ValueError(f'{device_id!r} is not a device; write "cuda:0" or "cpu"')
    free = total if free is None else free
    if total <= 0 or not 0 <= free <= total:
        raise ValueError(f"{device_id} has {free} of {total} bytes free, which cannot be")
    shown = name or ("pretended host" if kind == "cpu" else "pretended GPU")
    return Device(device_id, shown, "cpu" if kind == "cpu" else "cuda", total, free, is_real=False)
