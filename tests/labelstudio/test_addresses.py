"""Hosts that are on this machine or its networks are refused unless they are listed."""

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import MediaError
from backend.labelstudio.addresses import AddressPolicy, origin_of, parse_url

PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("100.100.100.200", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16"),
    *("::", "::1", "fe80::1%eth0", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "not an address", ""),
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not AddressPolicy().allows("host", [address])
    assert not AddressPolicy().allows("host", ["1.1.1.1", address]), "beside a public one"
    assert AddressPolicy(["host"]).allows("HOST.", [address])
    assert not AddressPolicy(["host"]).allows("host.evil", [address])


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert AddressPolicy().allows("host", [address])


def test_a_host_without_addresses_is_refused() -> None:
    assert not AddressPolicy().allows("host", [])


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_a_network_allows_its_own_addresses_however_they_are_written(address: ipaddress.IPv4Address) -> None:
    inside = address in ipaddress.ip_network("10.1.0.0/16")
    policy = AddressPolicy(["10.1.0.0/16"])
    assert policy.allows("host", [str(address)]) == inside
    assert policy.allows("host", [f"::ffff:{address}"]) == inside


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x/a", "file:///etc/passwd", "clip.mp4", "http://", "http:///a", "http://[bad/x", "http://x:99999/"),
        *("http://x\\@127.0.0.1/", "http://x y/", "http://x/\r\nHost: y", "//x/a", "http://x/\x00", "http://x:0/"),
        "http://x/" + "a" * 9000,
        "http://" + "a" * 300 + "/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(MediaError, match="use http or https"):
        parse_url(url)


@pytest.mark.parametrize("url", ["http://user:pw@x/a", "http://user@x/", "https://@x/"])
def test_a_user_in_an_address_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(MediaError, match="contains a user or a password") as raised:
        parse_url(url)
    assert "pw" not in str(raised.value).split()


@given(st.text(max_size=40))
def test_no_text_fails_in_another_way(text: str) -> None:
    for url in (text, f"http://{text}", f"http://h/{text}"):
        origin_of(url)
        with suppress(MediaError):
            assert parse_url(url).hostname
