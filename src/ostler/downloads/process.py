"""The server's side of the worker process: start it, hear it, end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ostler.downloads.errors import DownloadFailed, error_from
from ostler.downloads.order import Order
from ostler.jobs.child import ChildEnded, run_child


async def fetch(
    order: Order, report: Callable[[Mapping[str, Any]], None], rate_limit: Callable[[], int]
) -> Mapping[str, Any]:
    """Run a worker to its end; what it said last. Raises the error that it named.

    When this task is cancelled the worker is ended first; what has arrived stays in the staging folder.
    """
    told = order.rate_limit

    def news() -> Mapping[str, Any] | None:
        nonlocal told
        if rate_limit() == told:
            return None
        told = rate_limit()
        return {"rate_limit": told}

    try:
        said = await run_child(
            "ostler.downloads.worker",
            order.to_json(),
            report,
            label=f"download of {order.repo}",
            news=news,
            secret=order.token,
        )
    except ChildEnded as ended:
        tail = " | ".join(ended.log)
        raise DownloadFailed(
            f"the download process ended with {ended.exit_code} and no word" + (f": {tail}" if tail else ""),
            hint="Try it again: what has arrived is kept.",
            repo=order.repo,
        ) from None
    if said["event"] == "failed":
        raise error_from(str(said["code"]), str(said["message"]), order.repo)
    return said
