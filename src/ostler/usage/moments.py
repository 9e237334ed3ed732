"""Days, hours and minutes: the time of a request cut to one of them, in both databases alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, String, cast, func

from ostler.usage.tables import RequestRow

Bucket = Literal["minute", "hour", "day"]

LENGTHS: Mapping[Bucket, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
_TEXT = {"minute": "%Y-%m-%d %H:%M", "hour": "%Y-%m-%d %H", "day": "%Y-%m-%d"}
_LETTERS = {"minute": 16, "hour": 13, "day": 10}
_POSTGRESQL = {"minute": "YYYY-MM-DD HH24:MI", "hour": "YYYY-MM-DD HH24", "day": "YYYY-MM-DD"}


def moment(bucket: Bucket, *, sqlite: bool) -> ColumnElement[str]:
    """A column: the beginning of the bucket (UTC) in which a request came, as text ("2026-03-01 12")."""
    if sqlite:
        return func.substr(cast(RequestRow.at, String), 1, _LETTERS[bucket])
    return func.to_char(func.timezone("UTC", RequestRow.at), _POSTGRESQL[bucket])


def parse_moment(text: str, bucket: Bucket) -> datetime:
    """The time that such a text means."""
    return datetime.strptime(text, _TEXT[bucket]).replace(tzinfo=UTC)


def begin_of(at: datetime, bucket: Bucket) -> datetime:
    """The beginning of the bucket in which a time lies."""
    return parse_moment(at.astimezone(UTC).strftime(_TEXT[bucket]), bucket)
