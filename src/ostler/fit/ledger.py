"""The ledger: for each device, who holds its memory, and what is left for another model.

    total = kept back + others + measured of ours + promised to ours + available

*Kept back* is the reserve that the settings name. *Measured* is what our engines hold now. *Promised*
is what they need beyond that: all of it while they load, later what they have not touched yet. *Others*
is whatever else the driver says is in use.

One thing has to be said of the CPU: llama.cpp maps its weights from the file, so the system counts
them as page cache, which it calls free and would take back at once. The ledger counts them as held by
the model all the same: an engine whose weights are pushed out reads them from disk for each token. So
that they are not subtracted from the use of others, a claim says which part of it is `private`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ostler.fit.device import Device, kept_back

Bytes = Mapping[str, int]
"""Bytes by the id of the device."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one of our models holds, or will hold when it has loaded: bytes by device.

    `need` is the estimate, `measured` what was seen (empty before it was seen), `private` the part of
    `measured` that the driver counts as in use: all of it on a GPU, without mapped files on the host.
    """

    need: Bytes = field(default_factory=dict)
    measured: Bytes = field(default_factory=dict)
    private: Bytes = field(default_factory=dict)

    @property
    def held(self) -> dict[str, int]:
        """What comes free when it goes: by device the larger of need and measured."""
        ids = {*self.need, *self.measured}
        return {id: max(self.need.get(id, 0), self.measured.get(id, 0)) for id in sorted(ids)}


@dataclass(frozen=True, slots=True)
class Account:
    """One device's memory in bytes; the module says what each part is.

    `others` are the programs known to hold the foreign part, as far as the driver tells them. `limit_bytes`
    is the most that the model in question may have of it, where it has a limit of its own.
    """

    device_id: str
    total_bytes: int
    reserve_bytes: int = 0
    foreign_bytes: int = 0
    measured_bytes: int = 0
    promised_bytes: int = 0
    others: Bytes = field(default_factory=dict)
    limit_bytes: int | None = None

    @property
    def capacity_bytes(self) -> int:
        """What one model could ever have: all but the reserve, within its own limit."""
        return self._limited(max(0, self.total_bytes - self.reserve_bytes))

    @property
    def balance_bytes(self) -> int:
        """What is left for another model; negative where more is held than there is."""
        held = self.foreign_bytes + self.measured_bytes + self.promised_bytes
        return self._limited(self.total_bytes - self.reserve_bytes - held)

    @property
    def available_bytes(self) -> int:
        """What is left for another model, never negative."""
        return max(0, self.balance_bytes)

    def to_json(self) -> dict[str, int]:
        """A JSON-ready form of the parts; the total is the device's own."""
        names = ("reserve_bytes", "foreign_bytes", "measured_bytes", "promised_bytes", "available_bytes")
        return {name: getattr(self, name) for name in names}

    def _limited(self, n: int) -> int:
        return n if self.limit_bytes is None else min(n, self.limit_bytes)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounts by device. A value: taking and giving back make another one."""

    accounts: Mapping[str, Account] = field(default_factory=dict)

    def take(self, need: Bytes) -> Ledger:
        """The ledger after a start that needs this much."""
        return self._promise(need, 1)

    def give_back(self, held: Bytes) -> Ledger:
        """The ledger after the end of a model that held this much."""
        return self._promise(held, -1)

    def within(self, limits: Bytes) -> Ledger:
        """The ledger for a model that may have no more than this of these devices."""
        limited = {
            id: replace(account, limit_bytes=limits[id])
            for id, account in self.accounts.items()
            if id in limits
        }
        return Ledger({**self.accounts, **limited})

    def short(self, need: Bytes) -> dict[str, int]:
        """By device the bytes that are missing now; empty where it fits."""
        missing = {id: n - self._balance(id) for id, n in need.items() if n > 0}
        return {id: n for id, n in missing.items() if n > 0}

    def never(self, need: Bytes) -> dict[str, int]:
        """By device the bytes that would be missing even if nothing else ran; empty where it can fit."""
        capacity = {id: account.capacity_bytes for id, account in self.accounts.items()}
        missing = {id: n - capacity.get(id, 0) for id, n in need.items() if n > 0}
        return {id: n for id, n in missing.items() if n > 0}

    def account_of(self, device: Device) -> Account:
        """The device's account to show: what others hold of its pool counts as foreign where less is left."""
        account = self.accounts[device.id]
        if device.pool is None:
            return account
        taken = max(0, account.balance_bytes - self._balance(device.pool))
        return replace(account, foreign_bytes=account.foreign_bytes + taken)

    def without_others(self) -> Ledger:
        """The ledger as it would be if no program but ours used a device."""
        return Ledger({id: replace(a, foreign_bytes=0) for id, a in self.accounts.items()})

    def _balance(self, device_id: str) -> int:
        account = self.accounts.get(device_id)
        return account.balance_bytes if account else 0

    def _promise(self, amounts: Bytes, sign: int) -> Ledger:
        changed = {
            id: replace(account, promised_bytes=account.promised_bytes + sign * amounts[id])
            for id, account in self.accounts.items()
            if amounts.get(id)
        }
        return Ledger({**self.accounts, **changed})


def open_ledger(
    devices: Sequence[Device],
    seen: Iterable[Claim],
    claims: Iterable[Claim],
    reserve: Bytes,
    others: Mapping[str, Bytes] | None = None,
) -> Ledger:
    """The ledger of these devices.

    `seen` are the claims as they were measured at the moment at which the devices were asked, of all
    our engines that existed then: they tell what is foreign. `claims` are those that hold a place now.
    `others` are the bytes by device and name of programs that are not ours. Bytes of claims are `pooled`.
    """
    seen, claims = list(seen), list(claims)
    accounts = {}
    for device in devices:
        id = device.id
        used = max(0, device.total_bytes - device.free_bytes)
        ours = sum(claim.private.get(id, 0) for claim in seen) if device.is_real else 0
        measured = sum(claim.measured.get(id, 0) for claim in claims) if device.is_real else 0
        held = sum(claim.held.get(id, 0) for claim in claims)
        if device.told_by == "engine":  # it does not say whose the used bytes are
            ours = max(ours, held)
        foreign = (
            max(0, used - ours) if device.pool is None else 0
        )  # on the pool's account they stand already
        kept, names = kept_back(device, reserve), (others or {}).get(id, {})
        accounts[id] = Account(id, device.total_bytes, kept, foreign, measured, held - measured, names)
    return Ledger(accounts)
