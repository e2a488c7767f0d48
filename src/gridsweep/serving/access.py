"""Addresses of a server, and the key that an address requires."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path

from gridsweep.errors import AccessError, ServingError

KEY, KEY_FILE = "GRIDSWEEP_API_KEY", "GRIDSWEEP_API_KEY_FILE"
SHORTEST = 16


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_for(host: str, variables: Mapping[str, str]) -> str | None:
    """Return the key that clients must send: GRIDSWEEP_API_KEY, else the content of GRIDSWEEP_API_KEY_FILE, else None.

    Raise `AccessError` if other machines can reach the host and there is no key, or if the key is too short or cannot
    be sent.
    """
    key = variables.get(KEY) or None
    if key is None and (file := variables.get(KEY_FILE)):
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise AccessError(f"cannot read the key in {file}; check the path in {KEY_FILE}") from None
    if key is None:
        if is_loopback(host):
            return None
        raise AccessError(
            f"{host} can be reached from other machines, so a key is needed",
            where="--host",
            remedy=f"set {KEY} or {KEY_FILE} "
            '(python -c "import secrets; print(secrets.token_urlsafe())" makes one), or leave --host out',
        )
    if len(key) < SHORTEST or not all("!" <= letter <= "~" for letter in key):
        raise AccessError(f"the key needs at least {SHORTEST} letters, digits or signs, without spaces; make a new one")
    return key


def check_free(host: str, port: int) -> int:
    """Return the port, or a free one for port 0. Raise `ServingError` if the server cannot listen on it."""
    if not 0 <= port <= 65535:
        raise AccessError(f"{port} is not a port", where="--port", remedy="choose one from 1 to 65535")
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ServingError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port or --host"
        ) from None


def url(host: str, port: int) -> str:
    """Return the server's URL for clients; a server on all addresses goes by the machine's name."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
