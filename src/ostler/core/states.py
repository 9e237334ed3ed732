"""The states that Ostler speaks of, with exactly these names."""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    """Where an engine is in its life; `running` means that the engine said ready."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"

    @property
    def is_active(self) -> bool:
        """True while an engine exists or is being made or ended."""
        return self in (self.STARTING, self.LOADING, self.RUNNING, self.STOPPING)


class DesiredState(StrEnum):
    """What the owner wants of a model."""

    STOPPED = "stopped"
    RUNNING = "running"


class JobState(StrEnum):
    """Where a durable background job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """True when the job will not change any more."""
        return self in (self.SUCCEEDED, self.FAILED, self.CANCELLED)
