"""Keeping foreign web pages away from a server on loopback.

A page on the internet may make the browser send requests to 127.0.0.1, and by DNS rebinding even
read the answers. Such a request carries a foreign `Origin` or a foreign `Host`: both are refused
(design, section 10).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from ostler.core.errors import NotAllowed


class ForeignHost(NotAllowed):
    """The Host header is not a name of this machine."""

    hint = "Use http://127.0.0.1 or http://localhost; further names go into the setting allowed_hosts."


class ForeignOrigin(NotAllowed):
    """A web page from elsewhere asks."""

    hint = "Add its origin to the setting allowed_origins if the page is yours."


@lru_cache(maxsize=1024)
def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case; "" when it makes no sense."""
    host = host.strip().lower()
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        return name if closed and (not rest or _is_port(rest)) else ""
    name, colon, port = host.partition(":")
    return name.rstrip(".") if not colon or _is_port(":" + port) else ""


@lru_cache(maxsize=1024)
def is_loopback_name(name: str) -> bool:
    """True for localhost, names under .localhost (RFC 6761), 127.0.0.0/8 and ::1."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def origin_named(origin: str, allowed_origins: Collection[str]) -> bool:
    """True for an origin that stands in the list."""
    return any(origin.rstrip("/").lower() == entry.rstrip("/").lower() for entry in allowed_origins)


def same_origin(origin: str, host: str | None) -> bool:
    """True for the origin of a page that came from this server, by the Host header of the request."""
    scheme, colon, rest = origin.partition("://")
    return bool(colon) and scheme in ("http", "https") and host is not None and rest.lower() == host.lower()


def origin_allowed(origin: str, allowed_origins: Collection[str]) -> bool:
    """True for a loopback origin (any port) and for those allowed; "null" is foreign."""
    if origin_named(origin, allowed_origins):
        return True
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and is_loopback_name(name)


def check_browser(
    host: str | None,
    origin: str | None,
    *,
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] = (),
) -> None:
    """Refuse what a foreign page could have caused; call it only where the server is on loopback.

    A request without a Host header (HTTP/1.0) cannot come from a browser. Raises ForeignHost,
    ForeignOrigin.
    """
    if host is not None:
        name = host_name(host)
        if not is_loopback_name(name) and name not in {host_name(entry) for entry in allowed_hosts} - {""}:
            raise ForeignHost(f"this server does not answer to the name {host[:100]!r}", host=host[:100])
    if origin is not None and not origin_allowed(origin, allowed_origins):
        raise ForeignOrigin(f"pages of {origin[:100]!r} may not call this server", origin=origin[:100])


def _is_port(text: str) -> bool:
    return text.startswith(":") and (text == ":" or text[1:].isdecimal())
