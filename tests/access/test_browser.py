"""Which Host and Origin a server on loopback accepts."""

from __future__ import annotations

import pytest

from ostler.access.browser import ForeignHost, ForeignOrigin, check_browser


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:11500",
        "127.0.0.1:1",
        "127.8.8.8",
        "[::1]:80",
        "[::1]",
        "app.localhost",
        "localhost.",
    ],
)
def test_a_name_of_this_machine_is_accepted(host: str) -> None:
    check_browser(host, None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:11500",
        "10.0.0.1",
        "0.0.0.0",
        "[::2]",
        "localhost@evil.example",
        "127.0.0.1:80:evil",
        "[::1]evil",
        "",
        "2130706433",
    ],
)
def test_any_other_name_is_refused(host: str) -> None:
    with pytest.raises(ForeignHost):
        check_browser(host, None)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"])
def test_a_page_from_this_machine_is_accepted_on_any_port(origin: str) -> None:
    check_browser("localhost", origin)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "chrome-extension://localhost",
        "http://[::1",
        "",
    ],
)
def test_any_other_page_is_refused(origin: str) -> None:
    with pytest.raises(ForeignOrigin):
        check_browser("localhost", origin)


def test_what_the_settings_allow_is_accepted() -> None:
    check_browser(
        "models.example:443",
        "https://UI.example/",
        allowed_hosts=("models.example",),
        allowed_origins=("https://ui.example",),
    )
    with pytest.raises(ForeignHost):
        check_browser("", None, allowed_hosts=("",))
    with pytest.raises(ForeignOrigin):
        check_browser("localhost", "http://ui.example", allowed_origins=("https://ui.example",))


def test_a_client_without_a_host_header_is_no_browser() -> None:
    check_browser(None, None)
