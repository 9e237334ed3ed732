"""Failures as a person at a terminal meets them: a sentence, what to try, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ostler.cli.output import clean
from ostler.core.errors import Kind, OstlerError

OTHER, USAGE, DOES_NOT_FIT, NOT_FOUND, NOT_ALLOWED, ENGINE_FAILED = 1, 2, 3, 4, 5, 6
INTERRUPTED = 130
LOG_LINES = 10

EXIT_CODES: Mapping[str, int] = {
    Kind.INVALID: USAGE,
    Kind.DOES_NOT_FIT: DOES_NOT_FIT,
    Kind.NOT_FOUND: NOT_FOUND,
    Kind.UNAUTHENTICATED: NOT_ALLOWED,
    Kind.NOT_ALLOWED: NOT_ALLOWED,
    Kind.ENGINE: ENGINE_FAILED,
}
"""Exit code by the kind of the error; every kind that is not named here is OTHER."""

_BY_STATUS: Mapping[int, int] = {
    400: USAGE,
    401: NOT_ALLOWED,
    403: NOT_ALLOWED,
    404: NOT_FOUND,
    422: USAGE,
}


class CommandFailed(Exception):
    """A command cannot do what was asked. `exit_code` follows the table of `docs/cli.md`."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        exit_code: int = OTHER,
        code: str = "failed",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.code = code
        self.facts: Mapping[str, Any] = facts or {}

    @classmethod
    def of(cls, error: OstlerError) -> CommandFailed:
        """The same failure, raised by a room in this process."""
        return cls(
            error.message,
            hint=error.hint,
            exit_code=EXIT_CODES.get(error.kind, OTHER),
            code=error.code,
            facts=error.facts,
        )

    @classmethod
    def from_problem(cls, status: int, body: Mapping[str, Any]) -> CommandFailed:
        """The failure that an HTTP answer tells of: a problem document, or an OpenAI error envelope."""
        envelope = body.get("error")
        told: Mapping[str, Any] = envelope if isinstance(envelope, Mapping) else body
        message = told.get("detail") or told.get("message") or told.get("title") or f"HTTP {status}"
        if isinstance(envelope, str):
            message = envelope
        kind = told.get("kind")
        exit_code = EXIT_CODES.get(str(kind), OTHER) if kind else _BY_STATUS.get(status, OTHER)
        facts = told.get("facts")
        return cls(
            str(message),
            hint=told.get("hint"),
            exit_code=exit_code,
            code=str(told.get("code") or "http_error"),
            facts={**(facts if isinstance(facts, Mapping) else {}), "status": status},
        )


def print_failure(failure: CommandFailed) -> None:
    """`Error:` and `Try:` on stderr, with the engine's last log lines where there are some."""
    print(f"Error: {failure.message}", file=sys.stderr)
    told = failure.facts.get("failure")
    tail = told.get("log_tail") if isinstance(told, Mapping) else None
    if tail:
        print("Last lines of the engine's log:", file=sys.stderr)
        for line in tail[-LOG_LINES:]:
            print(f"  {clean(line)}", file=sys.stderr)
    if failure.hint:
        print(f"Try: {failure.hint}", file=sys.stderr)
