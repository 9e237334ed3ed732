"""Jobs are run once, in order, and say truly how they ended."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import pytest
from sqlalchemy import update

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import DiskFull, NotAllowed, TimedOut
from ostler.core.events import EventLog
from ostler.core.principals import Principal, Role
from ostler.core.states import JobState
from ostler.jobs.records import Job, JobNotFound, JobNotOver, JobNotRetryable, Report
from ostler.jobs.service import Jobs
from ostler.jobs.tables import JobRow
from tests.jobs.conftest import HeldRunner, serving


async def submit(jobs: Jobs, principal: Principal, key: str = "a") -> Job:
    return await jobs.submit("work", f"work on {key}", {"what": key}, key, principal)


async def test_a_job_is_queued_run_and_succeeds_with_its_result(
    jobs: Jobs, runner: HeldRunner, admin: Principal, events: EventLog
) -> None:
    job = await submit(jobs, admin)
    assert job.state is JobState.QUEUED and job.attempts == 0
    begun = await runner.next_begun()
    assert (begun.id, begun.state, begun.attempts) == (job.id, JobState.RUNNING, 1)
    runner.succeed(begun, path="/there")
    over = await jobs.wait(job.id, 10)
    assert over.state is JobState.SUCCEEDED and over.result == {"path": "/there"} and over.finished_at
    history, _ = await events.find(subject_id=job.id, newest_first=False)
    assert [event.kind for event in history] == ["job.queued", "job.running", "job.succeeded"]
    assert history[0].actor == admin.name


async def test_a_failure_is_kept_with_code_message_and_hint(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    runner.fail(await runner.next_begun(), DiskFull("no room", hint="Make room."))
    over = await jobs.wait(job.id, 10)
    assert over.state is JobState.FAILED
    assert over.error == {"code": "disk_full", "message": "no room", "hint": "Make room."}


async def test_an_unexpected_failure_is_logged_with_its_traceback(
    jobs: Jobs, runner: HeldRunner, admin: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    job = await submit(jobs, admin)
    with caplog.at_level(logging.ERROR):
        runner.fail(await runner.next_begun(), KeyError("surprise"))
        over = await jobs.wait(job.id, 10)
    assert over.error is not None and over.error["code"] == "internal"
    assert any(record.exc_info and job.id in record.getMessage() for record in caplog.records)


async def test_the_same_open_work_is_one_job_also_when_asked_at_once(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as one, serving(database, runner, server_id="two") as two:
        asked = await asyncio.gather(*(submit(jobs, admin) for jobs in (one, two) * 10))
        assert len({job.id for job in asked}) == 1
        runner.succeed(await runner.next_begun())
        await one.wait(asked[0].id, 10)
        assert (await submit(one, admin)).id != asked[0].id


async def test_two_servers_on_one_database_run_each_job_once(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as one, serving(database, runner, server_id="two") as two:
        submitted = {(await submit(one if n % 2 else two, admin, str(n))).id for n in range(8)}
        begun = []
        for _ in submitted:
            begun.append(await runner.next_begun())
            runner.succeed(begun[-1])
        assert sorted(job.id for job in begun) == sorted(submitted)
        for job in begun:
            assert (await one.wait(job.id, 10)).attempts == 1
        assert runner.begun.empty()


async def test_a_second_server_leaves_the_jobs_of_a_living_one_alone(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as one:
        job = await submit(one, admin)
        begun = await runner.next_begun()
        async with serving(database, runner, server_id="two") as two:
            assert (await two.get(job.id)).state is JobState.RUNNING
            runner.succeed(begun)
            assert (await two.wait(job.id, 10)).state is JobState.SUCCEEDED
        assert runner.begun.empty()


async def test_jobs_run_in_the_order_they_came_and_no_more_at_once_than_there_are_slots(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    free = 1
    async with serving(database, runner, slots=lambda: free) as jobs:
        asked = [(await submit(jobs, admin, key)).id for key in "abcd"]
        first = await runner.next_begun()
        free = 2  # read anew: a change of the setting counts at once
        runner.succeed(first)
        order = [first.id]
        for _ in range(3):
            begun = await runner.next_begun()
            order.append(begun.id)
            if len(order) > 2:
                runner.succeed(begun)
        assert order == asked and runner.most == 2


async def test_cancelling_ends_a_running_job_for_good_and_clears_up(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    await runner.next_begun()
    cancelled = await jobs.cancel(job.id, admin)
    assert cancelled.state is JobState.CANCELLED and runner.running == 0
    assert runner.discarded == [job.id]
    assert (await jobs.cancel(job.id, admin)).state is JobState.CANCELLED


async def test_a_runner_that_is_cancelled_can_clear_up_in_peace(
    database: Database, events: EventLog, admin: Principal
) -> None:
    begun, clearing, done, steps = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def run(_job: Job, _report: Report) -> dict[str, str]:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            clearing.set()
            await done.wait()
            steps.append("cleared up")
        return {}

    async def discard(_job: Job) -> None:
        steps.append("discarded")

    jobs = Jobs(database, events, Clock(), "here", "one")
    jobs.register("work", run, slots=lambda: 2, discard=discard)
    await jobs.start()
    job = await submit(jobs, admin)
    await begun.wait()
    cancelling = [asyncio.create_task(jobs.cancel(job.id, admin)) for _ in range(2)]
    await clearing.wait()
    await submit(jobs, admin, "another")  # makes the server look at all jobs, those being cancelled too
    begun.clear()
    await begun.wait()
    done.set()
    assert [(await task).state for task in cancelling] == [JobState.CANCELLED] * 2
    assert steps == ["cleared up", "discarded"]
    await jobs.stop()


async def test_a_job_can_be_cancelled_so_that_what_it_did_stays(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    await runner.next_begun()
    assert (await jobs.cancel(job.id, admin, keep=True)).state is JobState.CANCELLED
    assert runner.running == 0 and runner.discarded == []


async def test_cancelling_a_queued_job_means_that_it_never_runs(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner, slots=lambda: 1) as jobs:
        await submit(jobs, admin, "a")
        running = await runner.next_begun()
        waiting = await submit(jobs, admin, "b")
        assert (await jobs.cancel(waiting.id, admin)).state is JobState.CANCELLED
        last = await submit(jobs, admin, "c")
        runner.succeed(running)
        assert (await runner.next_begun()).id == last.id


async def test_a_job_of_another_server_is_cancelled_there(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as one:
        job = await submit(one, admin)
        await runner.next_begun()
        async with serving(database, HeldRunner(), server_id="two") as two:
            assert (await two.cancel(job.id, admin)).state is JobState.CANCELLED
    assert runner.discarded == [job.id]


async def test_a_failed_job_can_be_tried_again_and_one_that_succeeded_cannot(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    runner.fail(await runner.next_begun(), DiskFull("no room"))
    await jobs.wait(job.id, 10)
    await jobs.retry(job.id, admin)
    begun = await runner.next_begun()
    assert begun.attempts == 2 and begun.error is None
    runner.succeed(begun)
    await jobs.wait(job.id, 10)
    with pytest.raises(JobNotRetryable):
        await jobs.retry(job.id, admin)


async def test_a_retry_is_refused_while_the_same_work_is_open_elsewhere(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    runner.fail(await runner.next_begun(), DiskFull("no room"))
    await jobs.wait(job.id, 10)
    await submit(jobs, admin)
    with pytest.raises(JobNotRetryable):
        await jobs.retry(job.id, admin)


async def test_a_stopped_server_leaves_its_jobs_to_be_resumed(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as jobs:
        job = await submit(jobs, admin)
        runner.reports[(await runner.next_begun()).id]({"bytes_done": 7})
    async with serving(database, runner, server_id="next") as jobs:
        begun = await runner.next_begun()
        assert (begun.id, begun.attempts, begun.progress["bytes_done"]) == (job.id, 2, 7)
        runner.succeed(begun)
        assert (await jobs.wait(job.id, 10)).state is JobState.SUCCEEDED
    assert runner.discarded == []


async def test_a_job_whose_server_is_gone_is_queued_again(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as jobs:
        job = await submit(jobs, admin)
        await runner.next_begun()
    async with database.write() as session:  # as a server leaves it that is killed with -9
        await session.execute(update(JobRow).values(state="running", owner="gone|4194304|1.0"))
    async with serving(database, runner, server_id="next") as jobs:
        assert (await runner.next_begun()).id == job.id


async def test_a_job_that_was_being_cancelled_when_its_server_died_stays_cancelled(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner) as jobs:
        job = await submit(jobs, admin)
        await runner.next_begun()
    async with database.write() as session:
        values = {"state": "running", "owner": "gone|4194304|1.0", "cancel_asked": True}
        await session.execute(update(JobRow).values(**values))
    async with serving(database, runner, server_id="next") as jobs:
        assert (await jobs.get(job.id)).state is JobState.CANCELLED
    assert runner.discarded == [job.id] and runner.begun.empty()


class HeldClock(Clock):
    """Time passes only when it is told to."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_progress_is_announced_at_most_four_times_a_second_and_never_goes_back(
    database: Database, events: EventLog, runner: HeldRunner, admin: Principal
) -> None:
    clock = HeldClock()
    jobs = Jobs(database, events, clock, "here", "one")
    jobs.register("work", runner, slots=lambda: 1)
    await jobs.start()
    job = await submit(jobs, admin)
    report = runner.reports[(await runner.next_begun()).id]
    async with aclosing(events.listen()) as live:
        heard = asyncio.ensure_future(anext(live))
        await asyncio.sleep(0)
        report({"bytes_done": 10, "bytes_total": 100})
        for done in (20, 30, 5):
            report({"bytes_done": done})
        assert (await heard).data["progress"]["bytes_done"] == 10
        async with asyncio.timeout(10):
            later = await anext(live)
        assert later.kind == "job.progress" and later.id == 0
        assert later.data["progress"] == {"bytes_done": 30, "bytes_total": 100}
    assert (await jobs.get(job.id)).progress["bytes_done"] == 30
    await jobs.stop()


async def test_waiting_for_a_job_that_takes_longer_times_out(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    with pytest.raises(TimedOut):
        await jobs.wait(job.id, 0.05)


async def test_a_job_is_only_forgotten_when_it_is_over(
    jobs: Jobs, runner: HeldRunner, admin: Principal
) -> None:
    job = await submit(jobs, admin)
    begun = await runner.next_begun()
    with pytest.raises(JobNotOver):
        await jobs.remove(job.id, admin)
    runner.fail(begun, DiskFull("no room"))
    await jobs.wait(job.id, 10)
    await jobs.remove(job.id, admin)
    assert runner.discarded == [job.id]
    with pytest.raises(JobNotFound):
        await jobs.get(job.id)


async def test_only_a_manager_changes_the_jobs_of_others(
    jobs: Jobs, runner: HeldRunner, admin: Principal, manager: Principal
) -> None:
    somebody = Principal("somebody", Role.POWER_USER)
    job = await submit(jobs, admin)
    with pytest.raises(NotAllowed):
        await jobs.cancel(job.id, somebody)
    own = await submit(jobs, somebody, "b")
    assert (await jobs.cancel(own.id, somebody)).state is JobState.CANCELLED
    assert (await jobs.cancel(job.id, manager)).state is JobState.CANCELLED


async def test_the_list_is_filtered_and_paged_newest_first(
    database: Database, runner: HeldRunner, admin: Principal
) -> None:
    async with serving(database, runner, slots=lambda: 0) as jobs:
        ids = [(await submit(jobs, admin, key)).id for key in "abc"]
        page = await jobs.list(kind="work", state=JobState.QUEUED, limit=2)
        assert page.total == 3 and [job.id for job in page.items] == [ids[2], ids[1]]
        assert (await jobs.list(state=JobState.FAILED)).total == 0
