"""A real PostgreSQL server for tests: Debian's, run as an ordinary user in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl, newest version first; None where PostgreSQL is missing."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return versions[-1].parent if versions else None


class PostgreSQL:
    """A running server that makes one database per test."""

    def __init__(self, socket_dir: Path) -> None:
        self._socket_dir = socket_dir
        self._made = 0

    def new_database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        self._made += 1
        name = f"test_{self._made}"
        with psycopg.connect(host=str(self._socket_dir), dbname="postgres", user="ostler") as connection:
            connection.autocommit = True
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://ostler@/{name}?host={self._socket_dir}"


@contextmanager
def running_postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Start a server in `folder` that listens on a socket there, and stop it at the end."""
    programs = find_programs()
    assert programs is not None
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    as_user: list[str] = []
    if os.geteuid() == 0:  # initdb refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        for parent in [folder, *folder.parents]:
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    init = ["initdb", "-D", str(data), "-U", "ostler", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*as_user, str(programs / init[0]), *init[1:]], **quiet)  # type: ignore[call-overload]
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-w"]
    subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield PostgreSQL(folder)
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
