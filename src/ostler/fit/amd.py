"""AMD GPUs, by what the kernel's amdgpu driver says in /sys and /proc.

No library is needed: `mem_info_*` (Documentation/gpu/amdgpu/driver-misc.rst) and `fdinfo`
(Documentation/gpu/drm-usage-stats.rst) are what AMD's own libraries read as well. GPUs are numbered as
HIP_VISIBLE_DEVICES counts them: by the nodes of /sys/class/kfd. What is unreadable is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ostler.fit.device import HOST_ID, Device

VENDOR = "0x1002"
SMALL_CARVE_OUT_BYTES = 4 << 30
MAX_NUMBER = 64 << 40
"""More bytes than this are garbage."""
MAX_TEXT_BYTES = 16 * 1024
_CARD = re.compile(r"card\d{1,4}")
_SLOT = re.compile(r"^PCI_SLOT_NAME=([0-9a-fA-F:.]{7,16})$", re.MULTILINE)
_MINOR = re.compile(r"^drm_render_minor (\d{1,5})$", re.MULTILINE)
_RENDER = re.compile(r"renderD(\d{1,5})")
_USAGE = re.compile(r"^(drm-[a-z-]+):\s*(\S+)(?: (KiB|MiB))?$", re.MULTILINE)
_UNITS = {"": 1, "KiB": 1024, "MiB": 1024 * 1024}


@dataclass(frozen=True, slots=True)
class _Card:
    """What /sys says of one card. `place` is its number in HIP's order, if it has one."""

    slot: str
    place: int | None
    device: Device


class Amd:
    """Reads the kernel's files anew each time; `root` is "/" but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._sys = root / "sys/class"
        self._proc = root / "proc"

    def look(self) -> tuple[list[Device], dict[str, dict[int, int]]]:
        """The GPUs, with the bytes by process on each as far as this user may see them; blocking."""
        cards = [card for path in self._cards() if (card := self._card(path)) is not None]
        if not cards:
            return [], {}
        cards.sort(key=lambda card: (card.place is None, card.place or 0, card.slot))
        gpus, id_by_slot = [], {}
        for number, card in enumerate(cards):
            gpus.append(_numbered(card.device, number))
            id_by_slot[card.slot] = gpus[-1].id
        return gpus, self._processes(id_by_slot)

    def _cards(self) -> list[Path]:
        found = [path for path in _entries(self._sys / "drm") if _CARD.fullmatch(path.name)]
        return [path / "device" for path in found if _text(path / "device/vendor").strip() == VENDOR]

    def _card(self, path: Path) -> _Card | None:
        """None for one that tells no size: it may be going away just now."""
        total, used = _number(path / "mem_info_vram_total"), _number(path / "mem_info_vram_used")
        slot = _SLOT.search(_text(path / "uevent"))
        if not total or used is None or slot is None:
            return None
        code = _text(path / "device").strip()[:10]
        name = _text(path / "product_name").strip()[:100] or f"AMD GPU {code}".strip()
        free = total - min(used, total)
        device = Device("", name, "rocm", total, free)
        if total < SMALL_CARVE_OUT_BYTES and not (path / "board_info").exists():
            device = _of_the_host(path, device)
        return _Card(slot[1].lower(), self._place(path), device)

    def _place(self, path: Path) -> int | None:
        """The card's place among the GPUs of the compute driver."""
        minors = [int(m[1]) for entry in _entries(path / "drm") if (m := _RENDER.fullmatch(entry.name))]
        return next((n for n, minor in enumerate(self._compute_nodes()) if minor in minors), None)

    def _compute_nodes(self) -> list[int]:
        """Render minors of the GPUs in the order of the compute driver's nodes; a CPU's is 0."""
        nodes = [path for path in _entries(self._sys / "kfd/kfd/topology/nodes") if path.name.isdecimal()]
        texts = [_text(node / "properties") for node in sorted(nodes, key=lambda node: int(node.name))]
        minors = [int(match[1]) for text in texts if (match := _MINOR.search(text))]
        return [minor for minor in minors if minor]

    def _processes(self, id_by_slot: dict[str, str]) -> dict[str, dict[int, int]]:
        held: dict[str, dict[int, int]] = {id: {} for id in id_by_slot.values()}
        for process in _entries(self._proc):
            if not process.name.isdecimal():
                continue
            clients = {(slot, client): n for slot, client, n in _clients(process)}
            for (slot, _), n in clients.items():
                if n and (id := id_by_slot.get(slot)):
                    held[id][int(process.name)] = held[id].get(int(process.name), 0) + n
        return held


def _of_the_host(path: Path, device: Device) -> Device:
    """An APU: what it takes beyond its small carve-out is the host's, up to the size of its GTT."""
    total, used = _number(path / "mem_info_gtt_total"), _number(path / "mem_info_gtt_used")
    if not total or used is None:
        return device
    return Device("", device.name, "rocm", total, total - min(used, total), pool=HOST_ID)


def _numbered(device: Device, number: int) -> Device:
    return Device(
        f"rocm:{number}", device.name, "rocm", device.total_bytes, device.free_bytes, pool=device.pool
    )


def _clients(process: Path) -> Iterator[tuple[str, str, int]]:
    """Slot, client and bytes for each open file of a process that is a GPU's; one client may have several."""
    for file in _entries(process / "fd"):
        try:
            target = str(file.readlink())
        except OSError:
            continue
        if not target.startswith("/dev/dri/"):
            continue
        told = {m[1]: (m[2], m[3] or "") for m in _USAGE.finditer(_text(process / "fdinfo" / file.name))}
        slot, client = told.get("drm-pdev"), told.get("drm-client-id")
        if slot and client:
            yield slot[0].lower(), client[0], _taken(told, "vram") + _taken(told, "gtt")


def _taken(told: dict[str, tuple[str, str]], region: str) -> int:
    """Resident bytes in a region; `drm-memory-` is the older name of `drm-resident-`."""
    number, unit = told.get(f"drm-resident-{region}") or told.get(f"drm-memory-{region}") or ("0", "")
    return int(number) * _UNITS[unit] if number.isdecimal() and len(number) < 18 else 0


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    """The file's text; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    if not text.isdecimal() or len(text) > 18:
        return None
    return int(text) if int(text) <= MAX_NUMBER else None
