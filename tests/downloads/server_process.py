"""A server's downloads in a process of its own, to be killed. Arguments: database, settings, spec."""

from __future__ import annotations

import asyncio
import sys

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.events import EventLog
from ostler.core.principals import LOCAL_ADMIN
from ostler.core.settings import Settings
from ostler.downloads.service import Downloads
from ostler.hub.service import Hub
from ostler.jobs.service import Jobs
from ostler.library.service import Library


async def main() -> None:
    url, settings_json, spec = sys.argv[1:]
    settings, database = Settings.model_validate_json(settings_json), Database(url)
    events = EventLog(database, Clock())
    jobs = Jobs(database, events, Clock(), "here", "the first server")
    library = Library(database, events, Clock(), settings, "here")
    downloads = Downloads(jobs, Hub(settings), library, settings, events, Clock())
    await jobs.start()
    job = await downloads.pull(spec, principal=LOCAL_ADMIN)
    print(job.id, flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main())
