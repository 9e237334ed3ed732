"""Why a vLLM engine ended, read from its last log lines."""

from __future__ import annotations

from collections.abc import Sequence

from ostler.engines.base import Diagnosis


def diagnose(
    log_tail: Sequence[str], exit_code: int | None = None, *, oom_killed: bool = False
) -> Diagnosis | None:
    """The first rule that fits; None where nothing is known."""
    return None
