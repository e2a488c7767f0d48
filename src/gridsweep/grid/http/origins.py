"""Allowed targets of requests: the base URL and paths below it, on no other server."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from gridsweep.errors import AnswerError, SignalError
from gridsweep.grid.http.secrets import PATH_SAFE

if TYPE_CHECKING:
    import httpx2

_LIKE = "write it like https://api.example.org/v3"
_PORTS = {"http": 80, "https": 443}


def base_of(base_url: str, name: str) -> httpx2.URL:
    """Return the base URL of the provider `name`, if secrets may be sent there.

    The URL must be https, or http to this machine, without user, query or fragment, which may contain secrets. Raises
    `SignalError` otherwise; its message never repeats those parts.
    """
    try:
        import httpx2
    except ImportError:
        raise SignalError(f"the provider {name} needs the extra `live`: pip install 'gridsweep[live]'") from None
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, TypeError):
        url = httpx2.URL()
    if url.userinfo:
        raise SignalError(f"carbon.base_url of {name} names a user; use carbon.username and carbon.password")
    if url.scheme not in _PORTS or not url.host or url.query or url.fragment:
        raise SignalError(
            f"carbon.base_url of {name} is not the address of a server; {_LIKE}, with nothing after the path"
        )
    if url.scheme == "http" and not _is_loopback(url.host):
        raise SignalError(f"carbon.base_url of {name} is http://{url.host}, which is not encrypted; use https")
    return url


def below(base: httpx2.URL, path: str, params: Sequence[tuple[str, str]], asked: str) -> httpx2.URL:
    """Return the URL of a path below the base. Raises `SignalError` for a path that leads elsewhere."""
    import httpx2

    if any(part in ("..", ".") for part in path.split("/")):
        raise SignalError(f"{asked} is no path of the API; look at carbon.zone")
    url = httpx2.URL(f"{str(base).rstrip('/')}/{quote(path.lstrip('/'), safe=PATH_SAFE)}")
    return url.copy_with(params=list(params)) if params else url


def redirected(url: httpx2.URL, location: str, asked: str, status: int, shown: Callable[[str], str]) -> httpx2.URL:
    """Return the target of a redirect. Raises `AnswerError` unless it is on the same server."""
    import httpx2

    try:
        target = url.join(location)
    except (httpx2.InvalidURL, ValueError):
        target = httpx2.URL()
    if not location or not target.host:
        raise AnswerError(f"{asked} redirects to nowhere", status)
    if _origin(target) != _origin(url) or target.userinfo:
        raise AnswerError(
            f"{asked} redirects to {target.scheme}://{shown(target.host)}, and only {url.host} itself is asked; "
            "if the provider has moved, set carbon.base_url",
            status,
        )
    return target


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)
