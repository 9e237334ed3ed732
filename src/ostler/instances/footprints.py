"""Footprints: what earlier loads took, by files, program, options and devices.

A footprint is kept under a key that changes with everything that could change it, so it is either of
the very same launch or not found. Their number is bounded; those not seen for longest are forgotten.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import delete, func, select

from ostler.core.clock import Clock
from ostler.core.database import Database, row_to_change
from ostler.core.launch import LaunchSpec
from ostler.engines.base import Engine
from ostler.engines.sameness import file_state, memory_options, program_state
from ostler.fit.devices import Device
from ostler.fit.ledger import Bytes
from ostler.instances.tables import FootprintRow
from ostler.library.filesets import FileSet

MAX_KEPT = 1000
MAX_LOADS = 5
DIGEST = re.compile(r"[0-9a-f]{64}")
RATE_FROM = 20
COMPARABLE = 8
"""How many times smaller or larger files may be whose loads tell how long others take: small ones tell
only how long a program takes to start."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What loads of one launch took.

    `measured` is the most that was seen on each device, in bytes. `load_seconds` are the last loads,
    newest first. `has_served`: it was also looked at after requests, so buffers that grow have grown.
    """

    measured: Bytes
    load_seconds: tuple[float, ...] = ()
    has_served: bool = False
    seen_at: datetime | None = None

    @property
    def expected_load_s(self) -> float | None:
        """Seconds that the next load will take, by the last ones."""
        return round(median(self.load_seconds), 3) if self.load_seconds else None

    def with_peak(self, measured: Bytes, *, has_served: bool) -> Footprint:
        """The same with what was seen later: a peak never becomes smaller."""
        ids = {*self.measured, *measured}
        peak = {id: max(self.measured.get(id, 0), measured.get(id, 0)) for id in sorted(ids)}
        return replace(self, measured=peak, has_served=self.has_served or has_served)


def footprint_key(spec: LaunchSpec, engine: Engine, files: FileSet, devices: Sequence[Device]) -> str:
    """64 hex digits that change with the files, the program, the options that matter and the devices.

    Looks at files, so it must not run on the event loop.
    """
    paths = {file.path for file in files.files} | ({files.mmproj} if files.mmproj else set())
    facts: list[Any] = [
        sorted(_contents(path) for path in paths),
        spec.engine,
        spec.runtime,
        list(spec.devices),
        program_state(spec),
        memory_options(engine.options, spec, engine.no_memory),
        [[d.id, d.name, d.kind, d.total_bytes, d.driver] for d in devices],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _contents(path: Path) -> list[str]:
    """The name of a file with its size and its digest, where the hub's cache names it, or time of change."""
    size, changed_ns = file_state(path)[:2] or (0, 0)
    blob = path.resolve()
    is_digest = blob.parent.name == "blobs" and DIGEST.fullmatch(blob.name)
    return [path.name, str(size), blob.name if is_digest else str(changed_ns)]


class Footprints:
    """Keeps them in the database, for one node."""

    def __init__(self, database: Database, clock: Clock, node: str, *, max_kept: int = MAX_KEPT) -> None:
        self._database = database
        self._clock = clock
        self._node = node
        self._max_kept = max_kept

    async def lookup(self, key: str) -> Footprint | None:
        """The footprint of that key."""
        async with self._database.read() as session:
            row = await session.get(FootprintRow, (self._node, key))
        return _footprint(row) if row is not None else None

    async def record(
        self,
        key: str,
        measured: Bytes,
        *,
        engine: str,
        files_bytes: int,
        load_s: float | None = None,
        has_served: bool = False,
    ) -> None:
        """Keep what was measured; with `load_s` it is of a load that has just become ready."""
        async with self._database.write() as session:
            row = await row_to_change(session, FootprintRow, (self._node, key))
            before = _footprint(row) if row is not None else Footprint({})
            after = before.with_peak(measured, has_served=has_served)
            loads = before.load_seconds if load_s is None else (load_s, *before.load_seconds)[:MAX_LOADS]
            if row is None:
                row = FootprintRow(node=self._node, key=key, engine=engine)
                session.add(row)
            row.measured, row.has_served = dict(after.measured), after.has_served
            row.load_seconds, row.files_bytes = {"last": list(loads)}, files_bytes
            row.seen_at = self._clock.now()
            await session.flush()
            count = await session.scalar(select(func.count()).select_from(FootprintRow)) or 0
            if count > self._max_kept:
                oldest = select(FootprintRow.node, FootprintRow.key).order_by(FootprintRow.seen_at)
                for node, old in (await session.execute(oldest.limit(count - self._max_kept))).all():
                    await session.execute(
                        delete(FootprintRow).where(FootprintRow.node == node, FootprintRow.key == old)
                    )

    async def expected_load_s(self, engine: str, files_bytes: int) -> float | None:
        """Seconds that files of this size take an engine, by its other loads here; None where none tells."""
        query = select(FootprintRow).where(
            FootprintRow.node == self._node,
            FootprintRow.engine == engine,
            FootprintRow.files_bytes >= files_bytes // COMPARABLE,
            FootprintRow.files_bytes <= files_bytes * COMPARABLE,
        )
        async with self._database.read() as session:
            rows = (await session.scalars(query.order_by(FootprintRow.seen_at.desc()).limit(RATE_FROM))).all()
        known = [(row.files_bytes, took) for row in rows if (took := _footprint(row).expected_load_s)]
        total_bytes, total_s = sum(size for size, _ in known), sum(took for _, took in known)
        return round(files_bytes * total_s / total_bytes, 3) if total_bytes else None


def _footprint(row: FootprintRow) -> Footprint:
    return Footprint(
        measured={str(id): int(n) for id, n in row.measured.items()},
        load_seconds=_seconds(row.load_seconds),
        has_served=row.has_served,
        seen_at=row.seen_at,
    )


def _seconds(document: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(float(one) for one in document.get("last") or ())
