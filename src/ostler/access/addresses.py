"""From where a key may be used: addresses and networks of the internet protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ostler.core.comma_lists import comma_list
from ostler.core.errors import InvalidField

MAX_ADDRESSES = 200
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def check_addresses(texts: Iterable[str], field: str = "addresses") -> tuple[str, ...]:
    """Give a list of addresses ("10.0.0.7") and networks ("10.0.0.0/8") back. Raises InvalidField."""
    found = tuple(dict.fromkeys(text.strip() for text in texts))
    if len(found) > MAX_ADDRESSES:
        raise InvalidField(field, f"at most {MAX_ADDRESSES} addresses, these are {len(found)}")
    for text in found:
        try:
            ip_network(text)
        except ValueError as error:
            raise InvalidField(
                field, f"{text[:50]!r} is no address and no network: {error}", hint="Such as 10.0.0.0/8"
            ) from error
    return found


@lru_cache(maxsize=1_000)
def networks_of(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks that were checked before."""
    return tuple(ip_network(text) for text in texts)


def is_within(address: str | None, networks: Sequence[Network]) -> bool:
    """True if the address is in one of the networks; an IPv4 address may come written as IPv6."""
    found = _address(address)
    return found is not None and any(found in network for network in networks)


def client_address(peer: str | None, forwarded: str | None, trusted: Sequence[Network]) -> str | None:
    """Where a request comes from.

    That is who connected, unless that is a trusted proxy: then the last address in X-Forwarded-For that
    is not a trusted proxy itself. Entries before it may be anybody's invention.
    """
    hops = comma_list(forwarded)
    while hops and is_within(peer, trusted):
        peer = hops.pop()
    return peer


def _address(text: str | None) -> Address | None:
    try:
        found = ip_address(text or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
