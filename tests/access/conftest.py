"""An Access on a fresh database, with a clock that the test moves and cheap password hashes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher

from ostler.access.service import Access
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings


class HeldClock(Clock):
    """Stands still until it is moved; the wall clock may jump on its own."""

    def __init__(self) -> None:
        self.wall = datetime(2030, 1, 1, tzinfo=UTC)
        self.since_start_s = 1_000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.since_start_s

    def pass_s(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.since_start_s += seconds


@dataclass
class SettingsBox:
    """Settings that a test may exchange."""

    current: Settings = field(default_factory=Settings)

    def __call__(self) -> Settings:
        return self.current

    def use(self, **values: Any) -> None:
        self.current = Settings(**values)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def box() -> SettingsBox:
    return SettingsBox()


MakeAccess = Callable[[], Awaitable[Access]]


@pytest.fixture
async def make_access(
    database: Database, events: EventLog, clock: HeldClock, box: SettingsBox
) -> AsyncIterator[MakeAccess]:
    """Another server's Access on the same database, with the same secret."""
    made: list[Access] = []

    async def make() -> Access:
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        access = Access(database, events, clock, ServerSecret(b"s" * 32), box, hasher=hasher)
        await access.start()
        made.append(access)
        return access

    yield make
    for access in made:
        await access.close()


@pytest.fixture
async def access(make_access: MakeAccess) -> Access:
    return await make_access()
