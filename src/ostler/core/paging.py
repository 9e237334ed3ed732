"""One page of a list that may be long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

MAX_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items` from `offset` on, at most `limit` of `total`."""

    items: list[T]
    total: int
    limit: int
    offset: int

    def map(self, change: Callable[[T], U]) -> Page[U]:
        """The same page with every item changed."""
        return Page([change(item) for item in self.items], self.total, self.limit, self.offset)
