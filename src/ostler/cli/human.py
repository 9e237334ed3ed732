"""Numbers in a person's words: sizes, rates, durations and relative times."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_STEPS = (
    ("second", 60),
    ("minute", 60),
    ("hour", 24),
    ("day", 7),
    ("week", 4.345),
    ("month", 12),
    ("year", float("inf")),
)


def size(n_bytes: float | None) -> str:
    """Decimal units, as disks and Ollama count: `2.1 MB`, `47 GB`; `-` for None."""
    if n_bytes is None:
        return "-"
    value = float(n_bytes)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            digits = 1 if unit != "B" and value < 9.95 else 0
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError("the last unit always answers")


def rate(bytes_per_s: float | None) -> str:
    """`34 MB/s`; empty when it is not known."""
    return f"{size(bytes_per_s)}/s" if bytes_per_s else ""


def duration(seconds: float | None) -> str:
    """Two units at most: `850 ms`, `12 s`, `1m20s`, `2h05m`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def relative(moment: str | datetime | None, now: datetime | None = None) -> str:
    """`4 minutes from now`, `2 days ago`, `now`; `-` for None. Text is ISO 8601."""
    if moment is None:
        return "-"
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    amount = abs(seconds)
    if amount < 1:
        return "now"
    for unit, step in _STEPS:
        if amount < step:
            count = max(1, int(amount))
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"{words} from now" if seconds > 0 else f"{words} ago"
        amount /= step
    raise AssertionError("the last step is endless")


def count(number: int | None) -> str:
    """A large number in three digits: `1.9M`, `7.2B`, `512K`; `-` for None."""
    if number is None:
        return "-"
    value = float(number)
    for unit in ("", "K", "M", "B", "T"):
        if value < 999.5 or unit == "T":
            return f"{value:.{1 if unit and value < 99.5 else 0}f}{unit}".replace(".0", "")
        value /= 1000
    raise AssertionError("the last unit always answers")
