"""What can go wrong between Ostler and the hub."""

from __future__ import annotations

from ostler.core.errors import Invalid, NotAllowed, NotFound, Unsupported, UpstreamError


class BadSpec(Invalid):
    """The text does not name a model on the hub."""

    hint = "Write org/repo, org/repo:Q4_K_M, org/repo:file.gguf or the address of a repo on the hub."


class AmbiguousSelector(Invalid):
    """What was asked for fits more than one model of the repo."""


class RepoNotFound(NotFound):
    """The hub has no such repo, or does not show it to this token."""


class RevisionNotFound(NotFound):
    """The repo has no such branch, tag or commit."""


class NoSuchFile(NotFound):
    """The repo has no such file or quantization."""


class GatedRepo(NotAllowed):
    """The repo exists, and its owner decides who may have the files."""


class UnsupportedRepo(Unsupported):
    """The repo holds nothing that an engine here can load."""


class HubError(UpstreamError):
    """The hub answered, and the answer is an error or cannot be used."""

    hint = "Try again later; the state of the hub is shown at https://status.huggingface.co"


class TokenRefused(HubError):
    """The hub does not accept the token."""

    hint = "Check HF_TOKEN, or log in again with: hf auth login"


class HubBusy(HubError):
    """The hub asks to come back later. `retry_after_s` says when, if it told."""

    def __init__(self, message: str, *, retry_after_s: float | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)
        self.retry_after_s = retry_after_s


class UntrustedAnswer(HubError):
    """The hub's answer holds a name or a number that must not be believed (`../`, a negative size)."""

    hint = "Nothing was fetched. Check HF_ENDPOINT, and tell the owner of the repo."


class RangesRefused(UpstreamError):
    """The hub, or a proxy before it, sends whole files where a part was asked for."""

    hint = "Check HF_ENDPOINT and the proxies on the way, or download the model first: ostler pull REPO"


class StorageRefused(HubError):
    """The storage behind the hub does not take the address that the hub gave."""


class IncompleteRepo(UpstreamError):
    """Files that belong to the model are missing in the repo; `missing` names them."""

    hint = "The upload may still be going on: try again later, or choose another file of the repo."


class HubUnreachable(UpstreamError):
    """No answer from the hub: no network, no such host, or silence."""

    hint = "Check the network and HF_ENDPOINT. Models that are already here still run: ostler list"
