"""Which addresses are public: compared with what Python's own tables say, and with the registries' exceptions."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given, strategies as st

from agentloop.toolkit._addresses import is_allowed, is_public, networks

v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.one_of(st.integers(0, 2**128 - 1), st.integers(2**125, 2**126 - 1)).map(IPv6Address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "239.255.255.255",
        "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "fe80::1", "fe80::1%eth0", "fec0::1",
        "fc00::1", "fd00:ec2::254", "ff02::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "100::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_an_address_that_is(address: str) -> None:
    assert is_public(ip_address(address))


@given(v4 | v6)
def test_what_is_public_here_is_nothing_special_to_python(address: IPv4Address | IPv6Address) -> None:
    if is_public(address) and not address.exploded.startswith("0064:ff9b:0000:"):
        inner = getattr(address, "ipv4_mapped", None) or address
        kinds = ("private", "loopback", "link_local", "multicast", "reserved", "unspecified")
        assert [kind for kind in kinds if getattr(inner, f"is_{kind}")] == []


@given(v4)
@example(IPv4Address("127.0.0.1"))
@example(IPv4Address("169.254.169.254"))
def test_an_address_inside_of_another_is_judged_alike(address: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert is_public(IPv6Address(int(IPv6Address(prefix)) | int(address))) == is_public(address)
    for prefix, shift in (("2002::", 80), ("::", 0)):
        assert not is_public(IPv6Address(int(IPv6Address(prefix)) | int(address) << shift))


def test_a_network_can_be_allowed_and_no_more_than_it() -> None:
    allowed = networks(["127.0.0.0/30", "fd00::/16"])

    assert is_allowed(ip_address("127.0.0.1"), allowed)
    assert is_allowed(ip_address("::ffff:127.0.0.1"), allowed)
    assert is_allowed(ip_address("fd00::1"), allowed)
    assert not is_allowed(ip_address("127.0.0.4"), allowed)
    assert not is_allowed(ip_address("10.0.0.1"), allowed)
