"""The hub and downloads: pull, search, jobs."""

from __future__ import annotations

import shlex
from typing import Annotated
from urllib.parse import quote

import typer

from ostler.cli import human
from ostler.cli.client import Client, Json, model_path
from ostler.cli.connection import Server
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.options import JsonFlag, lists_alone, with_server
from ostler.cli.output import note, print_facts, print_json, print_table, state
from ostler.cli.pulling import follow, is_predefined, model_of_pull
from ostler.cli.targets import hub_spec

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id; its beginning is enough.")]


@with_server
def pull(
    server: Server,
    spec: Annotated[
        str,
        typer.Argument(metavar="REPO[:QUANT|FILE]", help="What to get from the hub, or a predefined alias."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model; else org/repo:QUANT.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the job and do not wait.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files, sizes and disk space only.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Download a model from the Hugging Face hub.

    Stopped halfway, the same command goes on where it was.
    Example: ostler pull org/repo:Q4_K_M, or ostler pull llama3:instruct
    """
    wanted = hub_spec(spec)
    if wanted is None and not dry_run and name is None and is_predefined(server.client(), spec):
        _pull_predefined(server.client(), spec, detach, json)
        return
    if wanted is None:
        raise CommandFailed(
            f"{spec!r} does not name a repo of the hub",
            hint="Write org/repo, org/repo:Q4_K_M or a name like llama3:instruct. Look: ostler search TEXT",
            exit_code=USAGE,
        )
    client = server.client()
    if dry_run:
        plan = client.post("/downloads/plan", {"spec": wanted})
        print_json(plan) if json else _print_plan(plan)
        return
    job = client.post("/downloads", {"spec": wanted})
    if detach:
        _tell_job(job, json)
        return
    ended = follow(client, job, retry=f"ostler pull {spec}")
    _tell_ready(model_of_pull(client, wanted, ended.get("result") or {}, name), json)


def _pull_predefined(client: Client, alias: str, detach: bool, json: bool) -> None:
    """The model is made by the server, under the alias's own name."""
    job = client.post(f"/predefined/{quote(alias)}/pull")
    if detach:
        _tell_job(job, json)
        return
    follow(client, job, retry=f"ostler pull {alias}")
    _tell_ready(client.get(model_path(alias)), json)


def _tell_job(job: Json, json: bool) -> None:
    print_json(job) if json else print(
        f"Job {job['id']}. See how far it is: ostler jobs show {job['id'][:8]}"
    )


def _tell_ready(model: Json, json: bool) -> None:
    if json:
        print_json(model)
    else:
        print(f"Ready: {model['name']}. Chat with it: ostler run {shlex.quote(model['name'])}")


def _print_plan(plan: Json) -> None:
    print_table(("FILE", "SIZE"), ((f["path"], human.size(f["size_bytes"])) for f in plan["files"]))
    print()
    print_facts(
        "Download",
        [
            ("repo", plan["repo"]),
            ("commit", plan.get("commit")),
            ("total", human.size(plan["total_bytes"])),
            ("already here", human.size(plan.get("have_bytes"))),
            ("to download", human.size(plan.get("need_bytes"))),
            ("free disk space", human.size(plan.get("free_bytes"))),
            ("fits the disk", "yes" if plan.get("fits_disk") else "no"),
        ],
    )


@with_server
def search(
    server: Server,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words to look for.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Also repos without GGUF files.")] = False,
    json: JsonFlag = False,
) -> None:
    """Search the Hugging Face hub for models.

    Example: ostler search qwen3 8b
    """
    found = server.client().get("/hub/search", q=text, limit=limit, gguf=None if everything else True)
    if json:
        print_json(found)
    elif not found["items"]:
        note(f"Nothing found for {text!r}. Try fewer words, or --all for repos without GGUF files.")
    else:
        rows = (
            (
                hit["repo"],
                human.count(hit.get("downloads")),
                human.count(hit.get("likes")),
                human.relative(hit.get("last_modified")),
                "yes" if hit.get("gated") else "",
            )
            for hit in found["items"]
        )
        print_table(("REPO", "DOWNLOADS", "LIKES", "MODIFIED", "GATED"), rows)


jobs_app = typer.Typer(
    help="Downloads and other background work; alone: list them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@jobs_app.callback()
def _jobs(ctx: typer.Context, json: JsonFlag = False) -> None:
    if lists_alone(ctx, json):
        _print_jobs(ctx.find_root().obj or Server(), everything=False, json=json)


def _print_jobs(server: Server, *, everything: bool, json: bool) -> None:
    client = server.client()
    found = (
        client.every("/jobs", sort="-created_at") if everything else client.get("/jobs", sort="-created_at")
    )
    if json:
        print_json(found)
    elif not found["items"]:
        note("No jobs. A download makes one: ostler pull org/repo:Q4_K_M")
    else:
        print_table(("JOB", "WHAT", "STATE", "PROGRESS", "LEFT", "STARTED"), map(_job_row, found["items"]))


def _job_row(job: Json) -> tuple[str, ...]:
    progress = job.get("progress") or {}
    done, total = progress.get("bytes_done"), progress.get("bytes_total")
    amount = f"{100 * (done or 0) // total}% of {human.size(total)}" if total else "-"
    left = human.duration(progress.get("eta_s")) if job["state"] == "running" else ""
    return (
        job["id"][:8],
        job["title"],
        state(job["state"]),
        amount,
        left,
        human.relative(job.get("started_at") or job["created_at"]),
    )


@jobs_app.command("list")
@with_server
def jobs_list(
    server: Server,
    everything: Annotated[bool, typer.Option("--all", help="Every one, not only the latest.")] = False,
    json: JsonFlag = False,
) -> None:
    """List jobs, the latest first."""
    _print_jobs(server, everything=everything, json=json)


@jobs_app.command("show")
@with_server
def jobs_show(server: Server, job: JobId, json: JsonFlag = False) -> None:
    """Show one job: what it does, how far it is, why it failed."""
    found = _find_job(server, job)
    if json:
        print_json(found)
        return
    error, progress = found.get("error") or {}, found.get("progress") or {}
    print_facts(
        found["title"],
        [
            ("job", found["id"]),
            ("state", state(found["state"])),
            ("progress", _job_row(found)[3]),
            ("current file", progress.get("current_file") if found["state"] == "running" else None),
            ("rate", human.rate(progress.get("rate_bytes_per_s")) or None),
            ("attempts", str(found.get("attempts", 0))),
            ("asked by", found.get("actor")),
            ("created", human.relative(found["created_at"])),
            ("finished", human.relative(found["finished_at"]) if found.get("finished_at") else None),
            ("error", error.get("message")),
            ("try", error.get("hint")),
        ],
    )


@jobs_app.command("cancel")
@with_server
def jobs_cancel(
    server: Server,
    job: JobId,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what is here for the next try.")] = False,
) -> None:
    """Cancel a job. What it downloaded so far is removed, unless --keep is given."""
    found = _find_job(server, job)
    server.client().post(f"/jobs/{found['id']}/cancel{'?keep=true' if keep else ''}")
    print(f"Cancelled {found['title']}. Take it up again: ostler jobs retry {found['id'][:8]}")


@jobs_app.command("retry")
@with_server
def jobs_retry(server: Server, job: JobId) -> None:
    """Take up a failed or cancelled job again."""
    found = _find_job(server, job)
    again = server.client().post(f"/jobs/{found['id']}/retry")
    print(f"{again.get('title', found['title'])}: {again.get('state', 'queued')}")


@jobs_app.command("wait")
@with_server
def jobs_wait(server: Server, job: JobId) -> None:
    """Wait for a job and show its progress; the exit code tells how it ended."""
    found = _find_job(server, job)
    ended = follow(server.client(), found, retry=f"ostler jobs retry {found['id'][:8]}", cancel=False)
    print(f"{ended['title']}: {ended['state']}")


def _find_job(server: Server, text: str) -> Json:
    """A job by its id or the unique beginning of it."""
    client = server.client()
    if len(text) >= 32:
        return client.get(f"/jobs/{text}")
    matches = [job for job in client.every("/jobs")["items"] if job["id"].startswith(text)]
    if len(matches) == 1:
        return dict(matches[0])
    if matches:
        raise CommandFailed(
            f"{len(matches)} jobs begin with {text!r}", hint="Write more of the id.", exit_code=USAGE
        )
    return client.get(f"/jobs/{text}")
