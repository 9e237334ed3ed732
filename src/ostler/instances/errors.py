"""What can go wrong between asking for a model and having it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from ostler.core.errors import Busy, Conflict, EngineError, Kind, OstlerError
from ostler.core.findings import Finding
from ostler.instances.views import Failure


class StartFailed(EngineError):
    """The engine did not become ready. `failure` has the reason, the exit code and the last lines."""

    def __init__(self, model_name: str, failure: Failure) -> None:
        super().__init__(
            f"{model_name} did not start: {failure.reason}",
            hint=failure.hint or f"See the whole log with: ostler logs {quote(model_name)}",
            model=model_name,
            failure=failure.to_json(),
        )
        self.failure = failure


class StartBlocked(Conflict):
    """What is known beforehand says that it would not start. `findings` are the errors, as data."""

    def __init__(self, model_name: str, findings: Sequence[Finding]) -> None:
        first, codes = findings[0], ",".join(found.code for found in findings)
        anyway = f"Start it all the same with: ostler start {quote(model_name)} --ignore {codes}"
        can_ignore = all(found.can_ignore for found in findings)
        super().__init__(
            f"{model_name} would not start: {'; '.join(found.message for found in findings)}",
            hint=" ".join(filter(None, (first.fix, anyway if can_ignore else None))) or None,
            model=model_name,
            findings=[found.to_json() for found in findings],
        )


class StartCancelled(Conflict):
    """The model was stopped while it started."""


class AlreadyRunning(Conflict):
    """It runs already, with other options than asked for."""


class NotOnDemand(Conflict):
    """The model is not running, and its policy says that requests do not start it."""


class QueueFull(Busy):
    """Too many requests already wait for models to start."""


class StillLoading(Busy):
    """The model was not ready in time."""


class NoRoom(Busy):
    """As many models run as may, or as memory holds, and none of them may leave."""

    def with_context(self, fitting: int | None) -> NoRoom:
        """The same with a context length in tokens with which there would be room now."""
        shorter = f"It would fit now with the option context_length={fitting}. " if fitting else ""
        facts = {**self.facts, "context_length_that_fits": fitting}
        return NoRoom(self.message, hint=f"{shorter}{self.hint or ''}", **facts)


class WillNotFit(OstlerError):
    """The model needs more memory than its devices have, even if nothing else ran.

    `facts` hold the numbers by device. `fitting` is a context length in tokens with which it would fit;
    `leave_open` are set options without which what is chosen in their place would.
    """

    kind = Kind.DOES_NOT_FIT

    def __init__(
        self,
        model_name: str,
        reason: str,
        facts: Mapping[str, Any],
        fitting: int | None = None,
        leave_open: Sequence[str] = (),
    ) -> None:
        anyway = f"Start it all the same with: ostler start {quote(model_name)} --ignore-fit"
        way_out = f"It would fit with the option context_length={fitting}. " if fitting else ""
        if leave_open:
            words = " ".join(f"{name}=" for name in leave_open)
            way_out = f"Left open, this is chosen to fit: ostler set {quote(model_name)} {words} "
        super().__init__(
            f"{model_name} does not fit: {reason}",
            hint=way_out + anyway,
            model=model_name,
            context_length_that_fits=fitting,
            leave_open=list(leave_open),
            **facts,
        )
        self.reason = reason
        self.numbers = facts


class ShuttingDown(Busy):
    """The server is ending."""
