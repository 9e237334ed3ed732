"""Files are placed as the hub cache wants them, and never outside of their repo's folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from ostler.downloads.order import OrderedFile
from ostler.downloads.placing import Placing, repo_folder
from ostler.library.errors import UnsafePath

COMMIT = "c" * 40


def file(path: str = "model.gguf", etag: str = "e" * 64, size: int = 4) -> OrderedFile:
    return OrderedFile(path, "", size, etag)


def place(cache: Path, placing: Placing, *files: OrderedFile, revision: str = "main") -> None:
    staging = cache.parent / "staging"
    staging.mkdir(exist_ok=True)
    placing.make_folders()
    for each in files:
        placing.blob(each).write_bytes(b"GGUF")
    placing.show(files, files[0].path, revision, staging)


def test_files_in_folders_and_revisions_with_slashes_are_found(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    placing = Placing(repo_folder(cache, "org/model"), COMMIT)
    files = (file("Q8/model.gguf"), file("a/b/config.json", "f" * 40))
    place(cache, placing, *files, revision="refs/pr/1")
    assert placing.is_complete(files, "refs/pr/1") and not placing.is_complete(files, "main")
    for path in ("Q8/model.gguf", "a/b/config.json"):
        found = hf_hub_download(
            "org/model", path, revision="refs/pr/1", cache_dir=cache, local_files_only=True
        )
        assert Path(found).read_bytes() == b"GGUF"
    assert not scan_cache_dir(cache).warnings


def test_without_links_the_contents_are_moved_to_their_name(tmp_path: Path) -> None:
    def refuse(_source: str, _target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    cache = tmp_path / "hub"
    placing = Placing(repo_folder(cache, "org/model"), COMMIT, link=refuse)
    place(cache, placing, file())
    found = hf_hub_download(
        "org/model", "model.gguf", revision=COMMIT, cache_dir=cache, local_files_only=True
    )
    assert not Path(found).is_symlink() and placing.has_contents(file())


def test_a_broken_link_is_replaced(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    placing = Placing(repo_folder(cache, "org/model"), COMMIT)
    placing.snapshot.mkdir(parents=True)
    (placing.snapshot / "model.gguf").symlink_to("../../blobs/gone")
    assert not placing.has_pointer(file())
    place(cache, placing, file())
    assert placing.has_pointer(file())


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/x", "a\\b", "a\0b", "", ".", "a/..", "a/", "..", "a/\n", "C:/x"]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    placing = Placing(repo_folder(tmp_path, "org/model"), COMMIT)
    with pytest.raises(UnsafePath):
        placing.pointer(file(path))


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    placing = Placing(repo_folder(tmp_path / "hub", "org/model"), COMMIT)
    placing.snapshot.mkdir(parents=True)
    (placing.snapshot / "sub").symlink_to(tmp_path)
    with pytest.raises(UnsafePath):
        placing.pointer(file("sub/model.gguf"))
    (placing.repo_dir / "blobs").symlink_to(tmp_path)
    with pytest.raises(UnsafePath):
        placing.blob(file())


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a\0"])
def test_commits_and_etags_are_single_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafePath):
        Placing(tmp_path, name)
    with pytest.raises(UnsafePath):
        Placing(tmp_path, COMMIT).blob(file(etag=name))


def test_a_revision_that_leads_out_writes_nothing(tmp_path: Path) -> None:
    placing = Placing(repo_folder(tmp_path / "hub", "org/model"), COMMIT)
    with pytest.raises(UnsafePath):
        place(tmp_path / "hub", placing, file(), revision="../../../../main")
    assert not (tmp_path / "main").exists()
