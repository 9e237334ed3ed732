"""The `Hub`: what the other rooms ask."""

from __future__ import annotations

from ostler.core.settings import Settings
from ostler.hub.records import RepoInfo, Resolution, SearchHit
from ostler.hub.specs import HubSpec


class Hub:
    """Search, repo information and the resolving of specs. Offline mode: Offline before any socket."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def endpoint(self) -> str:
        """The hub's address without a slash at the end."""
        return self._settings.hf_endpoint

    def token(self) -> str | None:
        """The token for the hub's own host, and for no other."""
        raise NotImplementedError

    def file_url(self, repo: str, commit: str, path: str) -> str:
        """Where a file's bytes are (the hub may redirect to another host)."""
        raise NotImplementedError

    async def search(
        self, query: str, *, limit: int = 20, filter_gguf: bool | None = None, sort: str = "downloads"
    ) -> list[SearchHit]:
        """Repos that fit the words, best first."""
        raise NotImplementedError

    async def repo(self, repo: str, revision: str | None = None) -> RepoInfo:
        """Everything about one repo at one revision."""
        raise NotImplementedError

    async def resolve(self, spec: HubSpec) -> Resolution:
        """The files that a spec means, pinned to a commit."""
        raise NotImplementedError
