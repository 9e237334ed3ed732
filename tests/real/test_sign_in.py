"""Signing in by a provider that others made and people run: Canaille, in an environment of its own."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from tests.access.provider import CLIENT, SECRET, go
from tests.api.conftest import MakeApi, make_api  # noqa: F401

pytestmark = pytest.mark.real

SERVER = Path(__file__).with_name("canaille_server.py")
HOME = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
ENVIRONMENT = Path(os.environ.get("OSTLER_TEST_CANAILLE") or HOME / "ostler-tests" / "venv-canaille")
BACK = "http://127.0.0.1:11500/ostler/v1/session/oidc/callback"


@pytest.fixture
async def canaille() -> AsyncIterator[str]:
    """The address of a Canaille with the person ada and the client of this server."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"Canaille is missing ({ENVIRONMENT}): run tests/real/install.sh")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        python, SERVER, str(port), BACK, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).strip() == b"ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def fill_in(
    browser: httpx2.AsyncClient, page: httpx2.Response, given: dict[str, str]
) -> httpx2.Response:
    """Send the page's form with what a person types, and the hidden fields as they are."""
    hidden = re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page.text)
    asked = set(re.findall(r'<input[^>]*\bname="([^"]+)"', page.text))
    form = dict(hidden) | {name: value for name, value in given.items() if name in asked}
    return await browser.post(str(page.url), data={**form, "answer": "accept"})


async def test_a_person_signs_in_at_canaille_and_is_an_administrator_by_a_group(
    canaille: str,
    make_api: MakeApi,  # noqa: F811
) -> None:
    api = await make_api(
        host="0.0.0.0",
        oidc_issuer=canaille,
        oidc_client_id=CLIENT,
        oidc_client_secret=SECRET,
        oidc_redirect_uri=BACK,
        oidc_scopes=("openid", "profile", "email", "groups"),
        oidc_roles=("llm-admins=admin",),
        oidc_default_role="none",
    )
    begun = await api.get("//ostler/v1/session/oidc", next="/models")
    async with httpx2.AsyncClient(timeout=30) as browser:
        page = await browser.get(begun.headers["location"])
        for _ in range(12):  # pages and forms, until Canaille sends the browser back
            if page.is_redirect:
                place = urljoin(str(page.url), page.headers["location"])
                if urlsplit(place).path.startswith("/ostler/"):
                    break
                page = await browser.get(place)
            else:
                page = await fill_in(browser, page, {"login": "ada", "password": "a good password"})
        else:
            raise AssertionError(page.text)
    answer = await go(api.client, place)
    assert (answer.status_code, answer.headers.get("location")) == (303, "/models"), answer.text
    me = (await api.get("/session")).json()
    assert (me["role"], me["kind"]) == ("admin", "session") and "ada" in me["name"].lower()
