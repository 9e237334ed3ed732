"""What people write to name a model, and what must not get through."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.hub import BadSpec, HubSpec, looks_like_spec, parse_spec
from ostler.hub.specs import check_relative, check_repo, check_revision


@pytest.mark.parametrize(
    ("text", "repo", "selector", "revision"),
    [
        ("org/repo", "org/repo", None, None),
        ("  org/repo \n", "org/repo", None, None),
        ("org/repo:Q4_K_M", "org/repo", "Q4_K_M", None),
        ("org/repo:file.gguf", "org/repo", "file.gguf", None),
        ("org/repo:sub/dir/file.gguf", "org/repo", "sub/dir/file.gguf", None),
        ("org/repo@v1.0", "org/repo", None, "v1.0"),
        ("org/repo:Q8_0@refs/pr/3", "org/repo", "Q8_0", "refs/pr/3"),
        ("org/repo@main:Q8_0", "org/repo", "Q8_0", "main"),
        ("org/repo:a@b.gguf", "org/repo", "a@b.gguf", None),
        ("org/repo:a@b.gguf@main", "org/repo", "a@b.gguf", "main"),
        ("org/repo:with space.gguf", "org/repo", "with space.gguf", None),
        ("hf.co/org/repo:Q4_K_M", "org/repo", "Q4_K_M", None),
        ("HuggingFace.co/org/repo", "org/repo", None, None),
        ("hf://org/repo@main", "org/repo", None, "main"),
        ("hf://models/org/repo", "org/repo", None, None),
        ("https://huggingface.co/org/repo", "org/repo", None, None),
        ("https://huggingface.co/org/repo/", "org/repo", None, None),
        ("https://hf.co/org/repo:Q8_0", "org/repo", "Q8_0", None),
        ("https://huggingface.co/org/repo/tree/main", "org/repo", None, "main"),
        ("https://huggingface.co/org/repo/tree/main/Q4_K_M", "org/repo", "Q4_K_M", "main"),
        ("https://huggingface.co/org/repo/blob/main/a%20b.gguf", "org/repo", "a b.gguf", "main"),
        (
            "https://huggingface.co/org/repo/resolve/v2/sub/a.gguf?download=true#x",
            *("org/repo", "sub/a.gguf", "v2"),
        ),
        ("https://huggingface.co/org/repo/blob/refs%2Fpr%2F1/a.gguf", "org/repo", "a.gguf", "refs/pr/1"),
        ("https://huggingface.co/org/repo/blob/refs/pr/1/a.gguf", "org/repo", "a.gguf", "refs/pr/1"),
        ("huggingface.co/org/repo/blob/main/a.gguf", "org/repo", "a.gguf", "main"),
    ],
)
def test_every_way_to_write_it_means_the_same(
    text: str, repo: str, selector: str | None, revision: str | None
) -> None:
    assert parse_spec(text) == HubSpec(repo, selector, revision)
    assert looks_like_spec(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", ":", "@", "org", "org/", "/repo", "org/repo/more", "org//repo", "org/repo:", "org/repo@"),
        *("org/..", "../etc", "../../etc/passwd", "org/re..po", "org/re--po", "org/repo.git", "-org/repo"),
        *("org/repo:../x.gguf", "org/repo:/etc/passwd", "org/repo:a/../b.gguf", "org/repo:a//b.gguf"),
        *("org/repo:a\\b.gguf", "org/repo:a\x00.gguf", "org/re\x1b[31mpo", "org/repo:a\nb", "org/repo:./a"),
        *("org/repo@../x", "org/repo@-x", "org/repo@a..b", "org/repo@a//b", "org/repo@/a", "org/repo@a b"),
        *("org/repo@x.lock", "org/repo?x=1", "org/repo#x", "orgé/repo", "org/\uff52epo", "org/re po"),
        *("https://example.org/org/repo", "https://huggingface.co@evil.example/org/repo"),
        *("https://huggingface.co:8443/org/repo", "https://huggingface.co.evil.example/org/repo"),
        *("https://user:secret@huggingface.co/org/repo", "https://[bad/org/repo", "ftp://huggingface.co/a/b"),
        *(
            "https://huggingface.co",
            "https://huggingface.co/org",
            "https://huggingface.co/org/repo/commits/main",
        ),
        *(
            "https://huggingface.co/datasets/org/data",
            "https://huggingface.co/spaces/org/app",
            "datasets/data",
        ),
        *("https://huggingface.co/org/repo/blob/main/..%2F..%2Fx", "https://huggingface.co/org/repo/resolve"),
        *("https://huggingface.co/org%2F..%2Frepo/x", "https://huggingface.co/org/repo/blob/%2E%2E/x.gguf"),
        *("org/" + "r" * 97, "org/repo:" + "a" * 2000, "o/" * 600),
    ],
)
def test_what_names_no_model_is_refused_with_a_next_step(text: str) -> None:
    with pytest.raises(BadSpec) as refused:
        parse_spec(text)
    assert refused.value.hint
    assert len(refused.value.message) < 250
    assert "secret" not in str(refused.value)
    assert refused.value.message.isprintable()
    assert not looks_like_spec(text)


def test_links_to_a_mirror_are_read_when_the_settings_name_it() -> None:
    link = "https://hub.example:8443/org/repo/blob/main/a.gguf"
    assert parse_spec(link, endpoint="https://hub.example:8443") == HubSpec("org/repo", "a.gguf", "main")
    with pytest.raises(BadSpec, match="not the hub"):
        parse_spec(link, endpoint="https://other.example")


@pytest.mark.parametrize(
    "text", ["llama3", "qwen3:8b", "./models/a.gguf", "/models/a.gguf", "~/a.gguf", "models/a.gguf", "a\\b/c"]
)
def test_a_stored_name_or_a_path_on_disk_does_not_look_like_a_spec(text: str) -> None:
    assert not looks_like_spec(text)


NASTY = st.text(alphabet=string.printable + "\x00\x7f\x9b\u2028é/:@.\\%", max_size=60)


@given(NASTY)
def test_whatever_is_parsed_is_safe_and_reads_back_the_same(text: str) -> None:
    try:
        spec = parse_spec(text)
    except BadSpec:
        return
    assert check_repo(spec.repo) == spec.repo
    assert spec.selector is None or check_relative(spec.selector) == spec.selector
    assert spec.revision is None or check_revision(spec.revision) == spec.revision
    if "@" not in (spec.selector or ""):
        assert parse_spec(str(spec)) == spec


@given(st.builds("{}/{}{}".format, st.sampled_from(["o", "org"]), st.sampled_from(["r", "m-GGUF"]), NASTY))
def test_nothing_after_a_good_name_breaks_the_parser(text: str) -> None:
    try:
        spec = parse_spec(text)
    except BadSpec:
        return
    for part in (spec.repo, spec.selector or "", spec.revision or ""):
        assert ".." not in part.split("/")
        assert "\x00" not in part
