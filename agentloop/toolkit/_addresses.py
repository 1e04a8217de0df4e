"""Decide which IP addresses are on the public internet.

Not ``is_global`` of `ipaddress`, which differs between versions of Python: these are the registries of IANA (IPv4 and
IPv6 special-purpose addresses, RFC 6890 and what updates it), without exceptions for single services. An IPv6
address that carries an IPv4 address is judged by the latter, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

__all__ = ["Address", "Network", "is_allowed", "is_public", "networks"]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; 0.0.0.0 itself reaches this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers; metadata of some clouds
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # the platform of Azure, from inside its machines
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; metadata of some clouds
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, such as Teredo, which carries IPv4 addresses
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries IPv4 addresses
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether ``address`` is public: not this host, a local network, or reserved for a special purpose."""
    address = _carried(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether ``address`` is public, or in one of the ``allowed`` networks."""
    carried = _carried(address)
    return is_public(address) or any(candidate in network for network in allowed for candidate in (address, carried))


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks such as ``"10.0.0.0/8"``, or single addresses.

    Raises:
      ValueError: a text is neither.
    """
    return tuple(ip_network(text) for text in texts)


def address_of(text: str) -> Address:
    """Parse an address as the system writes it, possibly with a zone such as ``%eth0``."""
    return ip_address(text)


def _carried(address: Address) -> Address:
    """The IPv4 address inside an IPv6 address that carries one, or the address itself."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
