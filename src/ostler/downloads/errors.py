"""What a download can fail with, as the rest of Ostler sees it."""

from __future__ import annotations

from ostler.core.errors import DiskFull, OstlerError, UpstreamError
from ostler.hub.errors import GatedRepo, HubBusy, HubError, HubUnreachable, NoSuchFile, UntrustedAnswer

FREE_SPACE = (
    "Free some space (ostler rm --files) and try again; what has arrived is kept and goes on from there."
)


class DownloadFailed(UpstreamError):
    """The worker process ended without saying why."""

    hint = "Try it again: what has arrived is kept."


class WrongContents(UpstreamError):
    """The bytes do not have the hash that the hub promised."""

    hint = (
        "Nothing was placed. A proxy or mirror on the way may change files; try again, or check HF_ENDPOINT."
    )


class ChangedOnHub(UpstreamError):
    """The hub serves something else than was resolved."""

    hint = "Pull again: the newest commit is looked up anew."


class DiskFailed(OstlerError):
    """The disk refused to write, for another reason than being full."""

    hint = "Check that the hub cache folder can be written: ostler doctor"


def error_from(code: str, message: str, repo: str) -> OstlerError:
    """The error for what the worker said (`faults.py` has the codes)."""
    match code:
        case "disk_full":
            return DiskFull(f"the disk is full while fetching {repo}", hint=FREE_SPACE)
        case "gated":
            return GatedRepo(
                message,
                hint=f"Ask for access at https://huggingface.co/{repo}, then set HF_TOKEN (hf auth login)",
                repo=repo,
            )
        case "not_found":
            return NoSuchFile(message, hint="It may have been removed: pull again.", repo=repo)
        case "wrong_bytes":
            return WrongContents(message, repo=repo)
        case "changed":
            return ChangedOnHub(message, repo=repo)
        case "unsafe_name":
            return UntrustedAnswer(message)
        case "unreachable":
            return HubUnreachable(message, repo=repo)
        case "hub_busy":
            return HubBusy(message, retry_after_s=None)
        case "disk_error":
            return DiskFailed(message, repo=repo)
        case _:
            return HubError(message, repo=repo)
