"""The page of what can go wrong: every rule is on it, in words and not in patterns."""

from __future__ import annotations

import pytest

from ostler.engines.registry import ENGINES
from ostler.engines.troubleshooting import phrases, render_troubleshooting_markdown

RULES = [rule for engine in ENGINES for rule in (*engine.known_ends.rules, *engine.known_ends.notes)]


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        (r"no space left|disk \w+ exceeded", ["no space left", "disk … exceeded"]),
        (r"a \((?P<n>[\d.]+)/b\)(?: and more)?", ["a (…/b)"]),
        (r"(?:one|two) files?\b", ["one file"]),
        (r"x(?!y)z$", ["xz"]),
        (r"'[^']|\]+'", ["'…", "]'"]),
    ],
)
def test_a_pattern_is_shown_as_what_the_log_says(pattern: str, shown: list[str]) -> None:
    assert phrases(pattern) == shown


def test_every_rule_is_on_the_page_with_words_of_the_log_and_a_next_step() -> None:
    page = render_troubleshooting_markdown(ENGINES)
    for rule in RULES:
        assert f"### {rule.title}\n" in page
        said = phrases(rule.pattern.pattern)
        assert said, rule.title
        assert not any(mark in text for text in said for mark in ("\\", "(?", "\\d", "[^"))
    assert "{" not in page.replace("{model_id}", "")
    assert page.count("- What to do: ") >= len({rule.title for rule in RULES})


def test_an_end_without_a_word_is_on_the_page_too() -> None:
    page = render_troubleshooting_markdown(ENGINES)
    for code in (
        "-9 or 137 (SIGKILL)",
        "-4 or 132 (SIGILL)",
        "-11 or 139 (SIGSEGV)",
        "says that memory ran out",
    ):
        assert code in page
