"""Which addresses the server may connect to when it fetches what a task names."""

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

from backend.errors import MediaError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Origin = tuple[str, str, int]
"""Scheme, host in lower case, port."""

_PORTS = {"http": 80, "https": 443}
# Public by their numbers, but here Azure's and Oracle's clouds serve their machines' metadata.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16"), ipaddress.ip_address("192.0.0.192")})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.ip_network("::/96")
_MAX_URL = 8192
"""Characters of an address; signed ones have some 2,000."""
_MAX_HOST = 253


def parse_url(url: str) -> SplitResult:
    """Split an http(s) address.

    Raises:
        MediaError: it is not one, or contains a user, a password, or characters that no address has.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in _PORTS and bool(parts.hostname) and len(parts.hostname or "") <= _MAX_HOST
        is_valid &= parts.port != 0  # raises ValueError for a port that is none
    except ValueError:
        is_valid = False
    if not is_valid or len(url) > _MAX_URL or "\\" in url or any(char.isspace() or ord(char) < 32 for char in url):
        raise MediaError("the video's address is not valid: use http or https")
    if "@" in parts.netloc:
        raise MediaError("the video's address contains a user or a password: remove them, they would be stored")
    return parts


def origin_of(url: str) -> Origin | None:
    """The origin of an http(s) address; None: it is not one."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return parts.scheme, (parts.hostname or "").rstrip("."), port


class AddressPolicy:
    """Refuses addresses that are not public, unless they are listed.

    Args:
        allowed: host names, addresses and networks; see the setting `media_allow`.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in allowed:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._names.add(entry.lower().rstrip("."))

    def allows(self, host: str, addresses: Sequence[str]) -> bool:
        """Whether to connect to a host.

        Args:
            host: the name in the address.
            addresses: everything that it resolves to; one refused address refuses the host.
        """
        if host.lower().rstrip(".") in self._names:
            return True
        return bool(addresses) and all(self._allows_address(address) for address in addresses)

    def _allows_address(self, text: str) -> bool:
        try:
            address = _unwrap(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return False
        if any(address.version == network.version and address in network for network in self._networks):
            return True
        return _is_public(address)


def _is_public(address: IPAddress) -> bool:
    is_special = address.is_multicast or address.is_reserved or address.is_link_local or address.is_unspecified
    is_special |= isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not is_special and address not in _METADATA


def _unwrap(address: IPAddress) -> IPAddress:
    """The IPv4 address that packets to an IPv6 address end at, if there is one."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
