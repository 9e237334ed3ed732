"""The `Hub`: what the other rooms ask."""

from __future__ import annotations

import asyncio
import copy
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import quote, urlsplit

from ostler.core.errors import InvalidField, NotAllowed, NotFound, Offline, UpstreamError
from ostler.core.settings import Settings
from ostler.hub.calls import Call, Patience, gated, get_bytes, get_json
from ostler.hub.choosing import choose
from ostler.hub.errors import HubError, HubUnreachable, NoSuchFile, TokenRefused, UnsupportedRepo
from ostler.hub.inspecting import RemoteModel, inspect_remote
from ostler.hub.manifests import DEFAULT_TAG, Tagged, check_tag, is_whole, preset_in, resolution_of
from ostler.hub.manifests import USER_AGENT as MANIFEST_AGENT
from ostler.hub.ranges import RemoteFile
from ostler.hub.reading import read_hits, read_repo
from ostler.hub.records import HubFile, RepoInfo, Resolution, SearchHit
from ostler.hub.specs import HubSpec, check_repo, check_revision
from ostler.library.bounded_json import parse_json_object
from ostler.library.facts import ModelFacts
from ostler.library.hf_config import MAX_CONFIG_BYTES, summary_of_config

log = logging.getLogger(__name__)

T = TypeVar("T")
Get = Callable[[str, Call, str | None, Patience], T]
"""Asks the hub at an address, with a token; blocks."""

SearchSort = Literal["downloads", "likes", "last_modified", "created", "trending"]
MAX_HITS = 100
MAX_QUERY_LENGTH = 200
CALLS_AT_ONCE = 4
"""So that a silent hub cannot take all threads of the process."""

TAG_HINT = "A tag is a quantization that the repo has, such as Q4_K_M; left out it is latest."
MAX_INSPECTED = 16
"""Models whose headers are remembered: a few MB each."""

_SORT_NAMES = {"last_modified": "lastModified", "created": "createdAt", "trending": "trendingScore"}
_SEARCH_FIELDS = (
    *("downloads", "likes", "tags", "pipeline_tag", "lastModified", "gated", "private"),
    *("gguf", "safetensors"),
)


class Hub:
    """Search, repo information and the resolving of specs.

    In offline mode every question raises Offline before any socket is opened. Every answer comes within
    `patience.total_s` or raises HubUnreachable. `token_file` is the one that `hf auth login` writes,
    found by huggingface_hub's rules (HF_TOKEN_PATH, HF_HOME) when not given.
    """

    def __init__(
        self, settings: Settings, *, token_file: Path | None = None, patience: Patience | None = None
    ) -> None:
        self._settings = settings
        self._own_token: str | None = None
        self._token_file = token_file
        self._patience = patience or Patience()
        self._inspected: dict[tuple[str, str, str], RemoteModel] = {}
        self._free = asyncio.Semaphore(CALLS_AT_ONCE)

    @property
    def endpoint(self) -> str:
        """The hub's address, without a slash at the end."""
        return self._settings.hf_endpoint

    def with_token(self, token: str | None) -> Hub:
        """The same hub, asked with this token instead of the server's own; itself where it is None."""
        if token is None:
            return self
        other = copy.copy(self)  # what is remembered and the bound on calls stay common
        other._own_token = token
        return other

    def token(self) -> str | None:
        """The token from the settings (HF_TOKEN, ...), else from the token file; for the hub's host only.

        It may read a file. Raises TokenRefused when it holds characters that cannot be sent.
        """
        secret = self._settings.hf_token
        told = self._own_token or (secret.get_secret_value() if secret else None)
        token = told.strip() if told else self._token_from_file()
        if token and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise TokenRefused("the hub's token holds characters that no token has")
        return token or None

    def file_url(self, repo: str, commit: str, path: str) -> str:
        """Where a file's bytes are; the hub redirects to another host for large files."""
        return f"{self.endpoint}/{repo}/resolve/{quote(commit, safe='')}/{quote(path)}"

    async def search(
        self, query: str, *, limit: int = 20, filter_gguf: bool | None = None, sort: str = "downloads"
    ) -> list[SearchHit]:
        """Repos whose name fits the words, best first; `sort` is one of SearchSort.

        `filter_gguf` True: only repos with GGUF files; False: only repos without.
        Raises InvalidField, HubError, HubUnreachable, Offline.
        """
        if sort not in get_args(SearchSort):
            raise InvalidField(
                "sort", f"cannot sort by {sort!r}", hint=f"Use {', '.join(get_args(SearchSort))}."
            )
        if not 1 <= limit <= MAX_HITS:
            raise InvalidField("limit", f"must be from 1 to {MAX_HITS}")
        if len(query) > MAX_QUERY_LENGTH:
            raise InvalidField("query", f"has over {MAX_QUERY_LENGTH} characters")
        params: dict[str, Any] = {
            "search": query.strip(),
            # Repos with GGUF are left out here and not by the hub, which cannot do it: ask for more.
            "limit": limit if filter_gguf is not False else MAX_HITS,
            "sort": _SORT_NAMES.get(sort, sort),
            "expand": list(_SEARCH_FIELDS),
        }
        if filter_gguf:
            params["filter"] = "gguf"
        hits = read_hits(await self._ask("a search", Call("/api/models", params)))
        if filter_gguf is not None:
            hits = [hit for hit in hits if hit.gguf is filter_gguf]
        return hits[:limit]

    async def repo(self, repo: str, revision: str | None = None) -> RepoInfo:
        """Everything about one repo at one revision, `main` by default; a renamed repo is followed.

        Raises BadSpec, RepoNotFound, RevisionNotFound, TokenRefused, HubError, UntrustedAnswer,
        HubUnreachable, Offline.
        """
        path = f"/api/models/{check_repo(repo)}"
        if revision is not None:
            path += f"/revision/{quote(check_revision(revision), safe='')}"
        answer = await self._ask(repo, Call(path, {"blobs": "true"}, repo, revision))
        info = read_repo(answer, repo, revision)
        if info.renamed_from:
            log.info("%s is called %s now", info.renamed_from, info.repo)
        return info

    async def resolve(self, spec: HubSpec) -> Resolution:
        """The files that a spec means (rules in choosing.py), pinned to the commit of this moment.

        Raises what `repo` raises, and NoSuchFile with near names, AmbiguousSelector, IncompleteRepo,
        UnsupportedRepo, GatedRepo.
        """
        info = await self.repo(spec.repo, spec.revision)
        choice = choose(info, spec.selector)
        if info.gated:
            await self._check_access(info)
        return Resolution(
            repo=info.repo,
            revision=info.revision,
            commit=info.commit,
            files=choice.files,
            primary=choice.variant.primary,
            tag=choice.variant.tag,
            format=choice.variant.format,
            total_bytes=sum(file.size_bytes for file in choice.files),
            quantization=choice.variant.quantization,
            mmproj=choice.mmproj.path if choice.mmproj else None,
            gated=info.gated,
            renamed_from=info.renamed_from,
        )

    async def tagged(self, repo: str, tag: str = DEFAULT_TAG) -> Tagged:
        """What llama.cpp gets for `-hf repo:tag`: the files, the manifest's bytes, the repo's preset.

        Raises what `repo` raises, and GatedRepo, NoSuchFile for an unknown tag, UnsupportedRepo where no
        GGUF is meant, IncompleteRepo.
        """
        path = f"/v2/{check_repo(repo)}/manifests/{quote(check_tag(tag), safe='')}"
        try:
            manifest = await self._ask_for(repo, Call(path, {}, repo, user_agent=MANIFEST_AGENT), get_bytes)
        except HubError as error:
            if error.facts.get("status") not in (400, 404):
                raise
            raise NoSuchFile(f"{repo} has no variant {tag!r}", hint=TAG_HINT, repo=repo, tag=tag) from error
        info = await self.repo(repo)
        found = resolution_of(info, tag, manifest)
        return Tagged(found, manifest, await self._preset(info))

    async def _preset(self, info: RepoInfo) -> bytes | None:
        """The preset, which a model does without: where it cannot be had, there is none."""
        file = preset_in(info)
        if file is None:
            return None
        remote = self._open(info, file, await asyncio.to_thread(self.token))
        try:
            async with self._free:
                contents = await asyncio.to_thread(remote.read, 0, file.size_bytes)
        except (UpstreamError, NotFound, NotAllowed) as error:
            log.warning("%s of %s was not fetched: %s", file.path, info.repo, error.message)
            return None
        if not is_whole(file, contents):
            log.warning("%s of %s came with other contents than the hub promised", file.path, info.repo)
            return None
        return contents

    async def inspect(self, spec: HubSpec) -> RemoteModel:
        """What the headers of a spec's files say; the weights stay where they are.

        For each file that is read one request to the hub and a few to its storage, at most 2 MB as a rule
        (docs/fit.md says when it is more); then it is remembered by commit. Raises what `resolve` raises,
        RangesRefused, and BrokenFile or UnsupportedFile of the library.
        """
        found = await self.resolve(spec)
        key = (found.repo, found.commit, found.primary)
        known = self._inspected.get(key)
        if known is None:
            token = await asyncio.to_thread(self.token)
            known = await inspect_remote(found, lambda file: self._open(found, file, token), self._free)
            self._inspected[key] = known
            while len(self._inspected) > MAX_INSPECTED:
                del self._inspected[next(iter(self._inspected))]
        return replace(known, revision=found.revision, gated=found.gated, renamed_from=found.renamed_from)

    async def facts(self, repo: str) -> ModelFacts:
        """What a repo's model is: from the headers of its weights, or from `config.json` where it holds none
        that can be read here. Raises what `inspect` raises; NoSuchFile where there is neither.
        """
        try:
            return (await self.inspect(HubSpec(check_repo(repo)))).facts
        except UnsupportedRepo:
            info = await self.repo(repo)
        for file in info.files:
            if file.path == "config.json" and file.size_bytes <= MAX_CONFIG_BYTES:
                return await self._config_facts(info, file)
        raise NoSuchFile(f"{info.repo} holds neither weights that can be read here nor a config.json")

    async def _config_facts(self, info: RepoInfo, file: HubFile) -> ModelFacts:
        remote = self._open(info, file, await asyncio.to_thread(self.token))
        async with self._free:
            content = await asyncio.to_thread(remote.read, 0, file.size_bytes)
        facts = summary_of_config(parse_json_object(content, file.path)).facts
        if facts is None:
            raise NoSuchFile(f"the config.json of {info.repo} describes no model")
        return facts

    def _open(self, found: Resolution | RepoInfo, file: HubFile, token: str | None) -> RemoteFile:
        url = self.file_url(found.repo, found.commit, file.path)
        call = Call(urlsplit(url).path, {}, found.repo, found.commit)
        return RemoteFile(self.endpoint, url, file, call, token, self._patience)

    async def _check_access(self, info: RepoInfo) -> None:
        """Raise GatedRepo before anything is planned, not when the first file is refused."""
        if await asyncio.to_thread(self.token) is None:
            raise gated(info.repo, self.endpoint, None)
        try:
            await self._ask(info.repo, Call(f"/api/models/{info.repo}/auth-check", {}, info.repo))
        except HubError as error:
            if error.facts.get("status") != 404:
                raise
            log.info(
                "%s does not know auth-check; access to %s shows when it is fetched", self.endpoint, info.repo
            )

    async def _ask(self, what: str, call: Call) -> Any:
        return await self._ask_for(what, call, get_json)

    async def _ask_for(self, what: str, call: Call, get: Get[T]) -> T:
        if self._settings.offline:
            raise Offline(f"offline: the hub is not asked about {what}")
        limit_s = self._patience.total_s + self._patience.silence_s
        try:
            async with asyncio.timeout(limit_s), self._free:
                return await asyncio.to_thread(
                    lambda: get(
                        self.endpoint, call, self.token(), self._patience
                    )  # the token may be in a file
                )
        except TimeoutError as error:
            raise HubUnreachable(f"no answer from the hub about {what} within {limit_s:g} s") from error

    def _token_from_file(self) -> str | None:
        path = self._token_file
        if path is None:
            from huggingface_hub import constants  # late, as everywhere in this room

            path = Path(constants.HF_TOKEN_PATH)
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            log.warning(
                "the hub's token file %s cannot be read, going on without: %s", path, type(error).__name__
            )
            return None
