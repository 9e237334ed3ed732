"""The layout `llama-cache`: the flat cache that llama.cpp kept until 2026, and that llamactl keeps.

Everything lies in one folder: `manifest=org=name=tag.json` (what the hub said that the tag means),
`org_name_file.gguf` (also for parts and the projector), `<file>.etag` beside each, `org_name_preset.ini`
once for a repo. A model is listed by its manifests; other files are not ours to judge. Newer programs
that are pointed here keep `models--org--name` folders of the hub cache's layout beside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostler.library.filesets import FileSet
from ostler.library.grouping import part_names
from ostler.library.layouts.base import Removal
from ostler.library.layouts.hub_cache import PREFIX, HubCacheLayout, freed_bytes
from ostler.library.scanning import Neighbourhood, Place, Problem, SeenFile, Walk, regular, seen

MANIFEST = "manifest="
ETAG = ".etag"
MAX_MANIFEST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """One tag of a repo. `gguf` and `mmproj` are names in the cache's folder, there or not."""

    name: str
    repo: str
    tag: str
    gguf: tuple[str, ...]
    mmproj: str | None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the tag needs, the one that an engine is given first."""
        return (*self.gguf, self.mmproj) if self.mmproj else self.gguf

    @property
    def preset(self) -> str:
        """The file of recommended settings, which all tags of the repo share."""
        return flat_name(self.repo, "preset.ini")


def flat_name(repo: str, path: str) -> str:
    """What a file of a repo is called in the cache: its folders in the repo fall away."""
    return f"{repo.replace('/', '_')}_{path.rpartition('/')[2]}"


def manifest_name(repo: str, tag: str) -> str:
    """What the manifest of a tag is called."""
    return f"{MANIFEST}{repo.replace('/', '=')}={tag}.json"


def read_manifest(name: str, contents: bytes) -> Manifest | None:
    """What a file of this name and contents says; None where it is no manifest."""
    owner = repo_and_tag(name)
    try:
        said = json.loads(contents) if owner else None
    except (ValueError, RecursionError):
        return None
    gguf, mmproj = (_file_in(said, key) for key in ("ggufFile", "mmprojFile"))
    if owner is None or gguf is None:
        return None
    repo, tag = owner
    parts = tuple(flat_name(repo, part) for part in part_names(gguf))
    return Manifest(name, repo, tag, parts, flat_name(repo, mmproj) if mmproj else None)


def repo_and_tag(name: str) -> tuple[str, str] | None:
    """What a manifest is of by its name; None for a name that none has."""
    if not (name.startswith(MANIFEST) and name.endswith(".json")):
        return None
    *owner, tag = name[len(MANIFEST) : -len(".json")].split("=")
    return ("/".join(owner), tag) if owner and all((*owner, tag)) else None


def manifests_among(
    names: Iterable[str],
    look: Callable[[str], SeenFile],
    remembered: dict[SeenFile, Manifest | None],
    wanted: Callable[[str], bool] | None = None,
) -> list[Manifest]:
    """The manifests among the names of a folder, of the repos that are wanted; what changed is read anew.

    `look` may raise OSError for a file that went away: it is passed over, as is what is no manifest.
    """
    found = []
    for name in names:
        if not name.startswith(MANIFEST):
            continue
        if wanted is not None and ((owner := repo_and_tag(name)) is None or not wanted(owner[0])):
            continue
        try:
            file = look(name)
            if file not in remembered:
                remembered[file] = read_manifest(name, _read(file.path))
        except OSError:
            continue
        if (manifest := remembered[file]) is not None:
            found.append(manifest)
    return found


def removal_of(folder: Path, doomed: Collection[Manifest], staying: Collection[Manifest]) -> Removal:
    """What goes with these tags while the others stay. Blocking.

    A file that another tag needs stays, the repo's preset until its last tag goes.
    """
    needed = {name for manifest in staying for name in (*manifest.files, manifest.preset)}
    names = {name for manifest in doomed for name in (*manifest.files, manifest.preset)} - needed
    going = [folder / form for name in sorted(names) for form in (name, name + ETAG)]
    # The manifests first: what is half deleted is not listed as a model.
    paths = [path for path in [*(folder / m.name for m in doomed), *going] if os.path.lexists(path)]
    kept = [folder / name for manifest in doomed for name in manifest.files if name in needed]
    links: list[Path] = []
    folders: list[Path] = []
    for repo in {manifest.repo for manifest in doomed}:
        repo_dir = folder / repo_folder_name(repo)
        inside = [Path(base, file) for base, _, files in os.walk(repo_dir) for file in files]
        leading = [path for path in inside if flat_target(str(path), str(folder)) in names]
        rest = [path for path in inside if path not in leading]
        if leading and all(path.is_relative_to(repo_dir / "refs") for path in rest):
            leading += rest  # no file is left that they could lead to
        links += leading
        folders += [Path(base) for base, _, _ in os.walk(repo_dir, topdown=False)] if leading else []
    return Removal(
        files=(*links, *paths),
        folders=tuple(folders),
        keep=tuple((path, "another tag in this cache means it too") for path in dict.fromkeys(kept)),
        freed_bytes=sum(freed_bytes(path) for path in paths),
    )


def repo_folder_name(repo: str) -> str:
    """What the hub cache's layout calls the folder of a repo."""
    return PREFIX + repo.replace("/", "--")


def flat_target(link: str, root: str) -> str | None:
    """The name of the flat file that a link leads to directly; None where it leads elsewhere."""
    try:
        target = os.readlink(link)  # noqa: PTH115 - thousands of links
    except OSError:
        return None
    where = os.path.normpath(os.path.join(os.path.dirname(link), target))  # noqa: PTH118, PTH120
    return os.path.basename(where) if os.path.dirname(where) == root else None  # noqa: PTH119, PTH120


class LlamaCacheLayout:
    """The flat cache. Its files may be links to the blobs of a hub cache, and to nothing else."""

    name = "llama-cache"
    names_others = True

    def __init__(self) -> None:
        self._hub = HubCacheLayout()

    def scan(self, root: str, walk: Walk, within: str | None = None) -> Iterator[Neighbourhood]:
        """One neighbourhood for each model with a manifest, then the repos in the hub cache's layout.

        `within` is the name of a file, or of a repo's folder.
        """
        entries = {entry.name: entry for entry in walk.entries_of(root)}
        for manifests in self._by_model(root, entries, walk, within).values():
            names = manifests[0].files
            if len(manifests) > 1:
                names = tuple(dict.fromkeys(name for manifest in manifests for name in manifest.files))
            files = {name: file for name in names if (file := self._file(root, name, entries, walk))}
            if any(name in files for name in manifests[0].gguf):
                yield Neighbourhood(manifests[0].gguf[0], [Place(root, "", files)], manifests[0].repo)
        if any(name.startswith(PREFIX) for name in entries) and (within or PREFIX).startswith(PREFIX):
            yield from self._scan_repos(root, walk, within)

    def scope(self, relative: str, *, is_folder: bool) -> str:
        """The file, or the repo's folder."""
        return relative.split("/", 1)[0]

    def repo_scope(self, root: str, repo: str) -> str | None:
        """The name of the repo's folder, also where only flat files are here."""
        wanted = repo_folder_name(repo).lower()
        try:
            names = os.listdir(root)  # noqa: PTH208
        except OSError:
            return None
        for name in names:
            if name.lower() == wanted:
                return name
            if name.startswith(MANIFEST):
                its_folder = PREFIX + "--".join(name[len(MANIFEST) :].split("=")[:-1])
                if its_folder.lower() == wanted:
                    return its_folder
        return None

    def removal(self, root: str, doomed: FileSet, others: Collection[FileSet]) -> Removal | None:
        """The files of every tag that means this model, without what other tags need."""
        if doomed.path.parent != Path(root):
            return self._hub.removal(root, doomed, others)
        manifests = manifests_in(Path(root))
        gone = [manifest for manifest in manifests if doomed.path.name in manifest.gguf]
        staying = [manifest for manifest in manifests if manifest not in gone]
        return removal_of(Path(root), gone, staying)

    def _by_model(
        self, root: str, entries: Mapping[str, os.DirEntry[str]], walk: Walk, within: str | None
    ) -> dict[str, list[Manifest]]:
        """The manifests by the file that an engine is given."""

        def wanted(repo: str) -> bool:
            assert within is not None
            if within.startswith(PREFIX):
                return repo_folder_name(repo).lower() == within.lower()
            return within.startswith(flat_name(repo, ""))

        def look(name: str) -> SeenFile:
            return seen(entries[name].path, entries[name].stat(follow_symlinks=False))

        found: dict[str, list[Manifest]] = {}
        is_wanted = None if within is None else wanted
        for manifest in manifests_among(entries, look, walk.remembered, is_wanted):
            if within is None or within.startswith(PREFIX) or within in manifest.files:
                found.setdefault(manifest.gguf[0], []).append(manifest)
        return found

    def _file(
        self, root: str, name: str, entries: Mapping[str, os.DirEntry[str]], walk: Walk
    ) -> SeenFile | None:
        entry = entries.get(name)
        if entry is None:
            return None
        if not entry.is_symlink():
            return seen(entry.path, entry.stat()) if entry.is_file(follow_symlinks=False) else None
        if leads_to_blob(entry.path):
            return regular(entry.path)
        walk.report(entry.path, "is a link that does not lead to a blob of a hub cache")
        return None

    def _scan_repos(self, root: str, walk: Walk, within: str | None) -> Iterator[Neighbourhood]:
        """What is in the hub cache's layout here; links to flat files are listed already."""
        inner = Walk(entries=walk.entries)
        yield from self._hub.scan(root, inner, within)
        others = [p for p in inner.problems if p.path == root or flat_target(p.path, root) is None]
        for problem in others:
            walk.report(*Problem(problem.path, problem.reason))


def manifests_in(folder: Path) -> list[Manifest]:
    """Every manifest in a cache. Blocking; nothing where there is no such folder."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []

    def look(name: str) -> SeenFile:
        return seen(str(folder / name), (folder / name).lstat())

    return manifests_among(names, look, {})


def leads_to_blob(path: str) -> bool:
    """True for a link to a blob of a hub cache, wherever that is."""
    try:
        blobs, repo = Path(os.path.realpath(path, strict=True)).parts[-3:-1][::-1]
    except (OSError, ValueError):
        return False
    return blobs == "blobs" and repo.startswith(PREFIX)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - thousands of files
        return file.read(MAX_MANIFEST_BYTES)


def _file_in(said: object, key: str) -> str | None:
    """The name of a file in a manifest, without its folders; None where there is no usable one."""
    entry = said.get(key) if isinstance(said, dict) else None
    path = entry.get("rfilename") if isinstance(entry, dict) else None
    name = path.rpartition("/")[2] if isinstance(path, str) else ""
    usable = name.isprintable() and "\\" not in name and name not in ("", ".", "..")
    return name if usable else None
