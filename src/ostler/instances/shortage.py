"""A shortage of memory in numbers and in words: what is needed, what is there, and who holds the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ostler.core.sizes import size_text
from ostler.fit.ledger import Account, Bytes, Ledger
from ostler.instances.limits import beyond_limit

if TYPE_CHECKING:
    from ostler.instances.plan import Resident

OTHERS = "other programs"


def facts(need: Bytes, ledger: Ledger, residents: Sequence[Resident], *, never: bool) -> dict[str, Any]:
    """JSON-ready: for each device that is short its need, what is available and the holders.

    `never`: only what would be missing if nothing else ran counts.
    """
    short = ledger.never(need) if never else ledger.short(need)
    return {
        "devices": [_device(id, need[id], ledger.accounts.get(id), residents) for id in sorted(short)],
        "never": never,
    }


def in_words(shown: Mapping[str, Any]) -> str:
    """One sentence of these facts, without its subject: "it needs 8 GiB on cuda:0, where ..."."""
    return "; ".join(_sentence(device, never=shown["never"]) for device in shown["devices"])


def fit_by_device(need: Bytes, ledger: Ledger, after: Ledger) -> list[dict[str, Any]]:
    """JSON-ready: for each device what a start needs of it and what is there.

    `after` is the ledger without those who would leave for it: the headroom is what is left then,
    negative where it is still not enough.
    """
    return [
        {
            "id": id,
            "need_bytes": need.get(id, 0),
            "available_bytes": account.available_bytes,
            "total_bytes": account.total_bytes,
            "fits": need.get(id, 0) <= account.available_bytes,
            "headroom_bytes": after.accounts[id].balance_bytes - need.get(id, 0),
        }
        for id, account in ledger.accounts.items()
    ]


def _device(id: str, need: int, account: Account | None, residents: Sequence[Resident]) -> dict[str, Any]:
    account = account or Account(id, 0)
    holders = [
        {"name": r.model_name, "bytes": held, "why": _why(r)}
        for r in residents
        if (held := r.claim.held.get(id, 0))
    ]
    named = {name: n for name, n in account.others.items() if n and account.foreign_bytes}
    holders += [{"name": name, "bytes": n, "why": ""} for name, n in named.items()]
    if (unnamed := account.foreign_bytes - sum(named.values())) > 0:
        holders.append({"name": OTHERS, "bytes": unnamed, "why": ""})
    return {
        "id": id,
        "need_bytes": need,
        "available_bytes": account.available_bytes,
        "total_bytes": account.total_bytes,
        "reserve_bytes": account.reserve_bytes,
        "limit_bytes": account.limit_bytes,
        "held_by": sorted(holders, key=lambda holder: -int(str(holder["bytes"]))),
    }


def _why(resident: Resident) -> str:
    if resident.is_leaving:
        return "stopping"
    if not resident.may_leave:
        return "may not leave"
    return "busy" if resident.is_busy else "idle"


def _sentence(device: Mapping[str, Any], *, never: bool) -> str:
    need, total = size_text(device["need_bytes"]), size_text(device["total_bytes"])
    if not device["total_bytes"]:
        return f"it needs {need} on {device['id']}, which is not there"
    limit = device["limit_bytes"]
    if limit is not None and device["need_bytes"] > limit:
        return beyond_limit(device["id"], device["need_bytes"], limit)
    if never:
        kept = f", {size_text(device['reserve_bytes'])} of them kept back" if device["reserve_bytes"] else ""
        return f"it needs {need} on {device['id']}, which has {total} in all{kept}"
    sentence = (
        f"it needs {need} on {device['id']}, where {size_text(device['available_bytes'])} of {total} are free"
    )
    held = ", ".join(
        f"{holder['name']} {size_text(holder['bytes'])}" + (f" ({holder['why']})" if holder["why"] else "")
        for holder in device["held_by"]
    )
    return f"{sentence} (held: {held})" if held else sentence
