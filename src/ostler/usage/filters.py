"""Which requests are meant: one filter for lists, sums, series, quantiles and exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select

from ostler.core.errors import InvalidField
from ostler.usage.tables import RequestRow

_CHAT = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
_COMPLETIONS = ("/v1/completions",)
_EMBEDDINGS = ("/v1/embeddings", "/v1/rerank", "/v1/reranking", "/v1/score", "/v1/classify", "/v1/pooling")

PATHS: Mapping[str, tuple[str, ...]] = {
    "chat": _CHAT,
    "completions": _COMPLETIONS,
    "embeddings": _EMBEDDINGS,
    "generate": _CHAT + _COMPLETIONS,
    "embed": _EMBEDDINGS,
}
"""The paths of each task, by the name of a key's scope and by the kind of model that does it."""

S = TypeVar("S", bound=Select[Any])


def task_of(path: str) -> str | None:
    """`generate` or `embed`; None for a path that is neither."""
    return next((task for task in ("generate", "embed") if path in PATHS[task]), None)


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests are meant; None leaves nothing out.

    `status_class` 2 means every status from 200 to 299, `since` is included and `until` is not, `failed`
    asks for statuses from 400 on and answers that were cut, `task` is a key of `PATHS`. Raises InvalidField
    for a task that is not there.
    """

    model: str | None = None
    key_id: int | None = None
    user_id: int | None = None
    org_id: int | None = None
    principal: str | None = None
    instance_id: int | None = None
    request_id: str | None = None
    status: int | None = None
    status_class: int | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    failed: bool | None = None

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in PATHS:
            raise InvalidField(
                "task", f"there is no task {self.task[:50]!r}", hint=f"One of: {', '.join(PATHS)}."
            )

    def narrow(self, query: S) -> S:
        """The query with what is meant only."""
        for column, value in (
            (RequestRow.model_name, self.model),
            (RequestRow.key_id, self.key_id),
            (RequestRow.user_id, self.user_id),
            (RequestRow.org_id, self.org_id),
            (RequestRow.principal, self.principal),
            (RequestRow.instance_id, self.instance_id),
            (RequestRow.request_id, self.request_id),
            (RequestRow.status, self.status),
        ):
            if value is not None:
                query = query.where(column == value)
        if self.status_class is not None:
            lowest = self.status_class * 100
            query = query.where(RequestRow.status >= lowest, RequestRow.status < lowest + 100)
        if self.task is not None:
            query = query.where(RequestRow.path.in_(PATHS[self.task]))
        if self.since is not None:
            query = query.where(RequestRow.at >= self.since)
        if self.until is not None:
            query = query.where(RequestRow.at < self.until)
        if self.failed is not None:
            query = query.where(failed() if self.failed else ~failed())
        return query


EVERYTHING = RequestFilter()


def failed() -> ColumnElement[bool]:
    """True of a request that ended with an error, or whose answer was cut."""
    return (RequestRow.status >= 400) | RequestRow.error.is_not(None)
