"""What is known of the kinds of jobs, and of each job that runs in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ostler.jobs.progress import Progress
from ostler.jobs.records import Discard, Runner


@dataclass(frozen=True, slots=True)
class Kind:
    """How jobs of one kind run, how many at once, and how their leavings are removed."""

    run: Runner
    slots: Callable[[], int]
    discard: Discard | None


@dataclass(slots=True)
class Running:
    """One job that runs here. `keep`: when it is cancelled, what it has done stays."""

    kind: str
    task: asyncio.Task[None]
    progress: Progress
    keep: bool = False
    cancelled: bool = False

    def cancel(self) -> None:
        """End it, once: a second cancellation would break into the runner's own clearing up."""
        if not self.cancelled:
            self.cancelled = True
            self.task.cancel()
