"""What all tests share: the demo model, a database, principals, and the missing parts named at the end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.migrate import upgrade
from ostler.core.principals import Principal, Role
from tests.postgresql import PostgreSQL, find_programs, running_postgresql
from tests.schema_file import place_database

pytest_plugins = ["tests.fixtures_hub", "tests.fixtures_real"]

CHECKOUT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("OSTLER_SHARED", CHECKOUT.parent / "shared"))


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the settings, caches or tokens of the person who runs it."""
    for name in list(os.environ):
        theirs = ("OSTLER_", "HF_", "HUGGING", "LLAMA_ARG_", "LLAMA_CACHE", "LLAMACTL_")
        if name.startswith(theirs) and name != "OSTLER_SHARED":
            monkeypatch.delenv(name)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The tiny chat model that ships in the package (Q8_0, 2 MB)."""
    return Path(str(resources.files("ostler") / "data" / "ostler-demo-Q8_0.gguf"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the whole demo model; what needs it is named as missing where it is absent."""
    if not (SHARED / "demo-model").is_dir():
        pytest.skip(f"the demo model's folder is missing: {SHARED}/demo-model (set OSTLER_SHARED)")
    return SHARED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on-postgresql", action="store_true", help="run tests that store on PostgreSQL")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL, leave out what is about SQLite itself."""
    if config.getoption("--on-postgresql"):
        about_sqlite = [item for item in items if item.get_closest_marker("sqlite_only")]
        config.hook.pytest_deselected(items=about_sqlite)
        items[:] = [item for item in items if item not in about_sqlite]


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL server of our own."""
    if find_programs() is None:
        pytest.skip("PostgreSQL is missing (initdb): run tests/real/install.sh")
    with TemporaryDirectory(prefix="ostler-pg-", dir="/tmp") as folder:
        with running_postgresql(Path(folder)) as server:
            yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database: SQLite, or PostgreSQL with `--on-postgresql`."""
    if not request.config.getoption("--on-postgresql"):
        return f"sqlite+aiosqlite:///{tmp_path / 'ostler.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A fresh database with the current schema."""
    database = Database(database_url)
    if database.is_sqlite:
        place_database(tmp_path)
    else:
        await upgrade(database)
    yield database
    await database.close()


@pytest.fixture
def events(database: Database) -> Iterator[EventLog]:
    """The event log on that database."""
    log = EventLog(database, Clock())
    yield log
    log.close()


@pytest.fixture
def admin() -> Principal:
    return Principal("an admin", Role.ADMIN)


@pytest.fixture
def manager() -> Principal:
    return Principal("a manager", Role.MANAGER)


@pytest.fixture
def user() -> Principal:
    return Principal("a user", Role.USER)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every part that was missing, so that nothing is skipped silently."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons: dict[str, int] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason] = reasons.get(reason, 0) + 1
    terminalreporter.section("missing parts")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count} not run: {reason}")
