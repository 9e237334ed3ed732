"""A program that looks after engines until it is killed; for `test_kill.py`.

    python -m tests.instances.serving FOLDER start|adopt NAME [crash-point]

Prints one JSON line when the model is as asked, then waits. With a crash point it kills itself with
SIGKILL right before (`before-`) or after (`after-`) the transition or act of that name.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ostler.core.database import Database
from ostler.core.principals import LOCAL_ADMIN
from ostler.instances.store import InstanceStore
from ostler.runtimes.process import ProcessRuntime
from tests.instances.conftest import running_house


def die_at(point: str) -> None:
    """Arrange to die by SIGKILL at this point."""
    when, _, name = point.partition("-")
    owner: Any = ProcessRuntime if name in ("launch", "stop") else InstanceStore
    method = name if name in ("launch", "stop", "begin") else "move"
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def act(*args: Any, **kwargs: Any) -> Any:
        is_here = method != "move" or args[2] == name
        if is_here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await original(*args, **kwargs)
        if is_here and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, act)


async def main(folder: Path, what: str, name: str, point: str | None) -> None:
    if point is not None:
        die_at(point)
    database = Database(f"sqlite+aiosqlite:///{folder / 'ostler.db'}")
    runtime = ProcessRuntime(folder / "engines", 1_000_000)
    async with running_house(database, folder, runtime) as house:
        if what == "start":
            await house.instances.start(name, LOCAL_ADMIN)
        elif what == "lease":
            await house.lease(house.models.get(name))
        elif what == "stop":
            await house.instances.start(name, LOCAL_ADMIN)
            await house.instances.stop(name, LOCAL_ADMIN)
        view = house.instances.view(house.models.get(name).id)
        print(json.dumps({"id": view.id, "pid": view.pid, "url": view.url}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    given = [*sys.argv[1:], None]
    asyncio.run(main(Path(str(given[0])), str(given[1]), str(given[2]), given[3]))
