"""What a runtime may offer beside its verbs: to say before a launch what would go wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ostler.core.findings import Finding
from ostler.core.launch import LaunchSpec


@runtime_checkable
class LooksAhead(Protocol):
    """A runtime that can tell before a launch what would go wrong with it: an image that is not here."""

    async def findings(self, spec: LaunchSpec) -> Sequence[Finding]:
        """What is wrong or worth knowing; errors refuse the start. Never raises."""
