"""Following a download: a bar for people, plain lines for pipes, and the model record at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from ostler.cli import human
from ostler.cli.client import Client, Json, model_path
from ostler.cli.failures import ENGINE_FAILED, EXIT_CODES, INTERRUPTED, OTHER, CommandFailed
from ostler.cli.output import is_terminal, note

POLL_S = 0.2
PLAIN_STEP = 10
"""On a pipe a line is printed at the start and then every so many percent."""

OVER = ("succeeded", "failed", "cancelled")


def pull_model(client: Client, spec: str, name: str | None = None) -> Json:
    """Download what the spec names, and give the model made of it. Progress goes to stderr."""
    job = client.post("/downloads", {"spec": spec})
    ended = follow(client, job, retry=f"ostler pull {spec}")
    return model_of_pull(client, spec, ended.get("result") or {}, name)


def is_predefined(client: Client, name: str) -> bool:
    """True for the name of a predefined alias, such as `llama3:instruct`."""
    return any(alias["name"] == name for alias in client.every("/predefined")["items"])


def model_of_pull(client: Client, spec: str, result: Json, name: str | None = None) -> Json:
    """Make the model of a downloaded repo, named like `org/repo:Q4_K_M`; one that exists is that model.

    `result` is the download's: it tells the repo's own spelling and which of its files came.
    """
    bare, at, revision = spec.partition("@")
    repo, _, selector = bare.partition(":")
    repo = str(result.get("repo") or repo)
    selector = selector or _tag_of(client, repo, str(result.get("path")))
    wanted = f"{repo}:{selector}" if selector else repo
    body: Json = {"source": {"hub": wanted + at + revision}}
    if name:
        body["name"] = name
    try:
        return client.post("/models", body)
    except CommandFailed as failure:
        if failure.code != "name_taken":
            raise
        other = client.get(model_path(str(failure.facts.get("model"))))
        if (other.get("source") or {}).get("repo") != repo:
            raise
        return other


def _tag_of(client: Client, repo: str, path: str) -> str:
    """The quantization in the name of a GGUF that lies at this path; empty where there is none."""
    for item in client.every("/files", repo=repo)["items"]:
        if item["path"] == path and item["format"] == "gguf":
            return item["tag"] or ""
    return ""


def follow(client: Client, job: Json, *, retry: str, cancel: bool = True) -> Json:
    """Wait for a job and show how far it is. Raises CommandFailed when it fails or is cancelled.

    Ctrl-C cancels the job (unless `cancel` is false: then only the waiting ends); what is already
    here stays, and `retry` goes on from there.
    """
    try:
        with _display(job["title"]) as show:
            while job["state"] not in OVER:
                show(job.get("progress") or {})
                time.sleep(POLL_S)
                job = client.get(f"/jobs/{job['id']}")
            show(_finished(job))
    except KeyboardInterrupt:
        if not cancel:
            raise
        client.post(f"/jobs/{job['id']}/cancel?keep=true")
        raise CommandFailed(
            "stopped; what was downloaded so far is kept", hint=f"Go on with: {retry}", exit_code=INTERRUPTED
        ) from None
    if job["state"] == "succeeded":
        return job
    raise _job_failure(job, retry)


def _finished(job: Json) -> Json:
    progress = dict(job.get("progress") or {})
    if job["state"] == "succeeded" and progress.get("bytes_total"):
        progress["bytes_done"] = progress["bytes_total"]
    return {**progress, "eta_s": None, "over": job["state"] == "succeeded"}


def _job_failure(job: Json, retry: str) -> CommandFailed:
    if job["state"] == "cancelled":
        return CommandFailed(f"{job['title']} was cancelled", hint=f"Go on with: {retry}", code="cancelled")
    error = job.get("error") or {}
    exit_code = EXIT_CODES.get(str(error.get("kind")), OTHER)
    return CommandFailed(
        error.get("message") or f"{job['title']} failed",
        hint=error.get("hint") or f"Go on with: {retry}",
        exit_code=exit_code if exit_code != ENGINE_FAILED else OTHER,
        code=error.get("code") or "job_failed",
    )


@contextmanager
def _display(title: str) -> Generator[Callable[[Json], None]]:
    if is_terminal(sys.stderr):
        with _bar(title) as show:
            yield show
    else:
        yield plain_lines(title, note)


def plain_lines(title: str, say: Callable[[str], None]) -> Callable[[Json], None]:
    """A printer of progress for pipes: one line at the start, at every PLAIN_STEP percent, at the end."""
    last = -1
    say(title)

    def show(progress: Json) -> None:
        nonlocal last
        total, done = progress.get("bytes_total"), progress.get("bytes_done") or 0
        if not total:
            return
        step = int(100 * done / total) // PLAIN_STEP
        if step > last:
            last = step
            speed = human.rate(progress.get("rate_bytes_per_s"))
            tail = f"  {speed}" if speed and done < total else ""
            say(f"{min(100, step * PLAIN_STEP)}%  {human.size(done)}/{human.size(total)}{tail}")

    return show


@contextmanager
def _bar(title: str) -> Generator[Callable[[Json], None]]:
    """Percent, bar, done/total, rate and time left on one line, at the terminal's width."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False),
        TaskProgressColumn(),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[speed]}"),
    ]
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, expand=True, refresh_per_second=5) as bar:
        task = bar.add_task(title, total=None, amount="", speed="")

        def show(progress: Json) -> None:
            total, done = progress.get("bytes_total"), progress.get("bytes_done") or 0
            eta = human.duration(progress.get("eta_s"))
            amount = f"{human.size(done)}/{human.size(total)}" if total else (progress.get("step") or "")
            speed = " ".join(part for part in (human.rate(progress.get("rate_bytes_per_s")), eta) if part)
            bar.update(task, total=total, completed=done, amount=amount, speed=speed)
            if progress.get("over") and total is None:
                bar.update(task, total=1, completed=1)

        yield show
