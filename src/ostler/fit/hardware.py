"""Hardware that is not here, as a person describes it: what comes after `ostler fit --on`.

    24GiB                     one GPU with so much memory
    2x24GiB                   two of them
    1x80GiB+128GiB host       a GPU, and the host's own memory
    rtx-4090, 2xa100-80gb     GPUs by name (known_gpus.py)
    rtx-4090+rtx-3060         different ones
    64GiB host                no GPU
    mi300x, arc-a770          AMD's and Intel's as well
    64GiB unified             one memory for a GPU and the host
    m3-max-64gb               such a machine by its chip
    ./machine.json            a file of the user's own (`hardware_from_json` says what is in it)

GiB is 1024^3 bytes, GB 1000^3. A host that is not described is assumed to have 64 GiB. All memory
counts as free. Start at `read_hardware`, or at `parse_hardware` where no file may be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.near import near_names
from ostler.fit.device import HOST_ID, Device, Kind
from ostler.fit.known_gpus import KNOWN_GPUS, SHORT_NAMES

FIELD = "on"
ASSUMED_HOST_BYTES = 64 * 1024**3
ASSUMED_HOST_NAME = "host (assumed)"
MAX_GPUS = 64
MAX_TEXT = 1_000
MAX_FILE_BYTES = 1024 * 1024
MIN_BYTES = 1024**2
MAX_BYTES = 64 * 1024**4
KINDS: tuple[Kind, ...] = ("cuda", "rocm", "xpu", "vulkan", "metal")
EXAMPLES = "Such as 24GiB, 2x24GiB, 1x80GiB+128GiB host, rtx-4090, 2xa100-80gb or m3-max-64gb."

_PART = re.compile(r"(?:(\d{1,4})\s*[x*]\s*)?(.+)", re.IGNORECASE | re.ASCII)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt])(i?)b?", re.IGNORECASE | re.ASCII)
_HOST = re.compile(r"(.*?)[\s:=]*\b(?:host|ram|cpu)|(?:host|ram|cpu)\b[\s:=]*(.*)", re.IGNORECASE | re.DOTALL)
_UNIFIED = re.compile(r"(.*?)\s*\bunified|unified\b\s*(.*)", re.IGNORECASE | re.DOTALL)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_VENDOR = re.compile(r"^(?:nvidia|geforce|tesla|quadro|amd|instinct|radeon|intel|apple)-")


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A GPU without its number yet. `host_bytes` is the machine's memory where the GPU takes from that."""

    name: str
    total_bytes: int
    free_bytes: int
    kind: Kind = "cuda"
    host_bytes: int | None = None


def read_hardware(text: str) -> list[Device]:
    """The devices of a description, or of the JSON file at a path: GPUs first, the host last.

    Blocking where it is a path. Raises InvalidField for the field `on`.
    """
    text = text.strip()
    if not is_path(text):
        return parse_hardware(text)
    try:
        with Path(text).expanduser().open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _wrong(f"{_shown(text)} is larger than {MAX_FILE_BYTES:,} bytes")
        return hardware_from_json(json.loads(data))
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _wrong(f"{_shown(text)} cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{_shown(text)} is not a JSON file") from error


def parse_hardware(text: str) -> list[Device]:
    """The devices of a description, GPUs first ("cuda:0", ...), the host ("cpu") last.

    Reads no file. Raises InvalidField for the field `on`, with near names for an unknown GPU.
    """
    if len(text) > MAX_TEXT:
        raise _wrong(f"a description of hardware has at most {MAX_TEXT:,} characters, this has {len(text):,}")
    gpus: list[_Gpu] = []
    host: int | None = None
    for part in re.split(r"[+,]", text):
        match = _HOST.fullmatch(part.strip())
        if match is not None:
            if host is not None:
                raise _wrong("the host's memory is described twice")
            host = _size(match[1] or match[2] or "", "the host's memory")
        else:
            gpus += _gpus(part.strip())
            _check_number(gpus)
    return _devices(gpus, host)


def hardware_from_json(data: Any) -> list[Device]:
    """The devices of a document such as

        {"devices": [{"name": "rtx-4090", "count": 2},
                     {"name": "My card", "kind": "rocm", "memory": "24GiB", "free": "22GiB"}],
         "host": "128GiB"}

    `memory`, `free` and `host` are sizes as text or numbers of bytes; `memory` may be left out for a known
    GPU. `kind` is one of KINDS, "cuda" by default. With `"unified": true` a GPU takes its memory, at most
    so much, from `host`. Raises InvalidField.
    """
    if not isinstance(data, Mapping):
        raise _wrong("a description of hardware is a JSON object with devices and host")
    _check_keys(data, ("devices", "host"), "the description")
    listed = data.get("devices", [])
    if not isinstance(listed, list):
        raise _wrong("devices is not a list")
    gpus: list[_Gpu] = []
    for entry in listed:
        gpus += _entry(entry)
        _check_number(gpus)
    host = data.get("host")
    return _devices(gpus, None if host is None else _json_size(host, "the host's memory"))


def _devices(gpus: list[_Gpu], host: int | None) -> list[Device]:
    if not gpus and host is None:
        raise _wrong("no device is described")
    unified = [gpu for gpu in gpus if gpu.host_bytes is not None]
    if len(unified) > 1:
        raise _wrong("a machine with unified memory has one GPU of that kind")
    if unified:
        host = host or unified[0].host_bytes
    if unified and host is not None and unified[0].total_bytes > host:
        raise _wrong("a GPU cannot take more from the host's memory than the host has")
    memory = host if host is not None else ASSUMED_HOST_BYTES
    name = "host" if host is not None else ASSUMED_HOST_NAME
    numbers: dict[str, int] = {}
    found = []
    for gpu in gpus:
        number = numbers[gpu.kind] = numbers.get(gpu.kind, -1) + 1
        pool = HOST_ID if gpu.host_bytes is not None else None
        id = f"{gpu.kind}:{number}"
        found.append(Device(id, gpu.name, gpu.kind, gpu.total_bytes, gpu.free_bytes, pool=pool))
    return [*found, Device(HOST_ID, name, "cpu", memory, memory)]


def _gpus(part: str) -> list[_Gpu]:
    match = _PART.fullmatch(part)
    if match is None:
        raise _wrong(f"{_shown(part)} describes no device" if part else "a part of the description is empty")
    count = _count(int(match[1])) if match[1] else 1
    text = match[2].strip()
    if unified := _UNIFIED.fullmatch(text):
        size = _size(unified[1] or unified[2] or "", "the unified memory")
        return [_Gpu("GPU of unified memory", size, size, "vulkan", size)] * count
    if _SIZE.fullmatch(text):
        size = _size(text, "a GPU's memory")
        return [_Gpu(f"GPU with {text}", size, size)] * count
    return [_known(text)] * count


def _known(text: str) -> _Gpu:
    """A GPU by its name, written in any usual way: "RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090"."""
    name = _plain(text)
    for candidate in (name, f"rtx-{name}", f"gtx-{name}"):
        key = SHORT_NAMES.get(candidate) or _FULL_NAMES.get(candidate, candidate)
        if key in KNOWN_GPUS:
            gpu = KNOWN_GPUS[key]
            size = int(gpu.memory_bytes * gpu.share)
            return _Gpu(gpu.name, size, size, gpu.kind, gpu.memory_bytes if gpu.is_unified else None)
    near = near_names(name, [*KNOWN_GPUS, *SHORT_NAMES])
    hint = f"Did you mean {', '.join(near)}? Or write its memory: 24GiB." if near else EXAMPLES
    raise _wrong(f"{_shown(text)} is neither a size nor a GPU that is known here", hint)


def _plain(name: str) -> str:
    """A GPU's name in small letters with dashes, without its maker's."""
    name = re.sub(r"[\s_]+", "-", name.strip().lower())
    while (shorter := _VENDOR.sub("", name)) != name:
        name = shorter
    return re.sub(r"^(rtx|gtx)-?(?=\w)", r"\1-", name)


_FULL_NAMES = {_plain(gpu.name): key for key, gpu in KNOWN_GPUS.items()}


def _entry(entry: Any) -> list[_Gpu]:
    if not isinstance(entry, Mapping):
        raise _wrong("an entry of devices is not an object")
    _check_keys(entry, ("name", "kind", "count", "memory", "free", "unified"), "a device")
    name, count, memory = entry.get("name"), entry.get("count", 1), entry.get("memory")
    if name is not None and (not isinstance(name, str) or not name.strip() or len(name) > 100):
        raise _wrong("a device's name is not a text of 1 to 100 characters")
    if type(count) is not int:
        raise _wrong("a device's count is not a whole number")
    if memory is None and name is None:
        raise _wrong("a device has neither a name nor memory")
    gpu = _known(name) if memory is None and name else _Gpu(name or "GPU", 0, 0)
    total = gpu.total_bytes or _json_size(memory, "a device's memory")
    free = total if entry.get("free") is None else _json_size(entry["free"], "a device's free memory", 0)
    if free > total:
        raise _wrong("a device has more free memory than memory")
    kind, is_unified = entry.get("kind", gpu.kind), entry.get("unified", gpu.host_bytes is not None)
    if kind not in KINDS or type(is_unified) is not bool:
        raise _wrong(f"a device's kind is one of {', '.join(KINDS)}, and its unified is true or false")
    host = (gpu.host_bytes or total) if is_unified else None
    return [
        replace(gpu, name=name or gpu.name, total_bytes=total, free_bytes=free, kind=kind, host_bytes=host)
    ] * (_count(count))


def _json_size(value: Any, what: str, least: int = MIN_BYTES) -> int:
    if type(value) is int:
        return _checked(value, what, least)
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return _size(value, what, least)
    raise _wrong(f"{what} is neither a size nor a number of bytes")


def _size(text: str, what: str, least: int = MIN_BYTES) -> int:
    """A size in bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise _wrong(f"{what} is {_shown(text)}, which is no size")
    base = 1024 if match[3] or match[0][-1].lower() != "b" else 1000
    return _checked(int(float(match[1]) * base ** _POWERS[match[2].lower()]), what, least)


def _checked(size: int, what: str, least: int) -> int:
    if not least <= size <= MAX_BYTES:
        raise _wrong(f"{what} must be from {least // 1024**2} MiB to {MAX_BYTES // 1024**4} TiB")
    return size


def _count(count: int) -> int:
    if not 1 <= count <= MAX_GPUS:
        raise _wrong(f"from 1 to {MAX_GPUS} GPUs can be described")
    return count


def _check_number(gpus: list[_Gpu]) -> None:
    if gpus:
        _count(len(gpus))


def _check_keys(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in data:
        if key not in known:
            near = near_names(str(key)[:100], known)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            raise _wrong(f"{what} has the unknown field {_shown(str(key))}", hint)


def is_path(text: str) -> bool:
    """True where a description is the path of a file that describes the hardware."""
    return "/" in text or "\\" in text or text.startswith(("~", ".")) or text.lower().endswith(".json")


def _wrong(message: str, hint: str = EXAMPLES) -> InvalidField:
    return InvalidField(FIELD, message, hint=hint)


def _shown(text: str) -> str:
    return repr(text[:80])
