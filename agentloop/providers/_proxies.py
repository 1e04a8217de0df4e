"""Which hosts are reached without a proxy, as the variable ``NO_PROXY`` says.

There is no standard; the rules are those that curl, Go and requests share, where they do not differ.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

__all__ = ["is_direct"]


def is_direct(host: str, port: int, no_proxy: str) -> bool:
    """Whether ``no_proxy`` says that ``host`` is to be reached without a proxy.

    Args:
      host: a name, or an address without brackets.
      port: the port of the server.
      no_proxy: entries with commas or spaces between them. An entry is ``*``; a name, which stands for its subdomains
        as well, with or without a dot before it; a pattern with ``*``; an address; or a network such as
        ``10.0.0.0/8``. An entry may have a port, and then counts for that port only.
    """
    host = host.strip("[]").rstrip(".").lower()
    address = _address(host)
    return any(_matches(entry.lower(), host, address, port) for entry in re.split(r"[,\s;]+", no_proxy) if entry)


def _matches(entry: str, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    if entry == "*":
        return True
    name, entry_port = _without_port(entry)
    if entry_port is not None and entry_port != port:
        return False
    if "/" in name:
        return address is not None and _is_inside(address, name)
    entry_address = _address(name)
    if entry_address is not None:
        return entry_address == address
    name = name.rstrip(".").removeprefix("*").removeprefix(".") if name.startswith("*.") else name.strip(".")
    if not name:
        return False
    if "*" in name:
        return fnmatchcase(host, name)
    return address is None and (host == name or host.endswith(f".{name}"))


def _without_port(entry: str) -> tuple[str, int | None]:
    """``entry``, and the port behind it. The colons of an address without brackets belong to the address."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):(\d{1,5})", entry)
    return (match[1].strip("[]"), int(match[2])) if match else (entry.strip("[]"), None)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_inside(address: IPv4Address | IPv6Address, entry: str) -> bool:
    try:
        # Not strict: ``10.1.2.3/8`` is the network in which that address lies.
        return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
