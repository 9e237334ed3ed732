"""docs/api.md speaks of what is really there."""

from __future__ import annotations

import re
from pathlib import Path

from ostler.api.app import build_api
from ostler.api.errors import HTTP_STATUS
from ostler.core.principals import Role
from tests.api.conftest import API, Api

GUIDE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


async def test_every_route_in_the_guide_exists(api: Api) -> None:
    paths = build_api(api.services).openapi()["paths"]
    known = [re.compile(re.sub(r"\{\w+\}", ".+", path.replace(".", r"\."))) for path in paths]
    named = {API + path for path in re.findall(r"\$OSTLER(/[^\s\"?\\`]+)", GUIDE)}
    named |= set(re.findall(r"`(?:[A-Z]+ )?(/[a-z/{}-]+)[?`]", GUIDE))
    named |= set(re.findall(r"`[A-Z]+ (/[\w/{}-]+)", GUIDE))
    missing = set()
    for path in named - {"/v1", API, "/docs", "/openapi.json"}:
        full = path if path.startswith(API) or path in paths else API + path
        if not any(pattern.fullmatch(full) for pattern in known):
            missing.add(path)
    ending = {path for path in missing if any(known_path.endswith(path) for known_path in paths)}
    assert len(named) > 20 and missing - ending == set()


def test_every_status_and_role_stands_in_the_guide() -> None:
    for status in sorted({*HTTP_STATUS.values(), 400, 412} - {500, 501}):
        assert str(status) in GUIDE
    for role in Role:
        assert f"| `{role.label}` |" in GUIDE
