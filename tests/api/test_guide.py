"""docs/api.md speaks of what is really there."""

from __future__ import annotations

import re
from pathlib import Path

from ostler.api.app import build_api
from ostler.api.errors import HTTP_STATUS
from ostler.core.principals import Role
from tests.api.conftest import API, Api

GUIDE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def calls_in_the_guide() -> set[tuple[str, str]]:
    """Method and path of every curl line, and of every `METHOD /path` and `/path` in the text."""
    here = r"(?:\$OSTLER|http://127.0.0.1:11500/ostler/v1)"
    curls = re.findall(rf"curl (?:-N )?(?:-X ([A-Z]+) )?\"?{here}(/[^\s\"?\\]+)", GUIDE)
    inline = re.findall(r"`(GET|POST|PATCH|DELETE) (/[\w/{}-]+)", GUIDE)
    return {(method or "GET", path.removeprefix(API)) for method, path in [*curls, *inline]}


async def test_every_call_in_the_guide_exists(api: Api) -> None:
    known = [
        (method.upper(), re.compile(re.sub(r"\{\w+\}", ".+", path.removeprefix(API))))
        for path, methods in build_api(api.services).openapi()["paths"].items()
        for method in methods
    ]
    calls = calls_in_the_guide()
    assert len(calls) > 20
    for method, path in calls:
        assert any(method == verb and pattern.fullmatch(path) for verb, pattern in known), (method, path)


def test_every_status_and_role_stands_in_the_guide() -> None:
    for status in sorted({*HTTP_STATUS.values(), 400, 412} - {500, 501}):
        assert str(status) in GUIDE
    for role in Role:
        assert f"| `{role.label}` |" in GUIDE
