"""Waiting: nobody waits for ever for a task that is not wanted any more."""

from __future__ import annotations

import asyncio

from ostler.instances.waiting import cancel


async def test_a_task_that_loses_a_cancel_is_cancelled_again() -> None:
    began = asyncio.Event()

    async def deaf_once() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(deaf_once())
    await began.wait()
    async with asyncio.timeout(5):
        await cancel(task)
    assert task.cancelled()


async def test_a_task_that_is_over_is_only_heard() -> None:
    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    await cancel(task)
    assert task.done() and not task.cancelled()
