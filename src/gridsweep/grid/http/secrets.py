"""Secrets: where they are read from, and how they are kept out of everything that is written."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from gridsweep.errors import CredentialError

MASK = "***"
HIDDEN_AT_ONCE = 32
PATH_SAFE = "/:+,@"
"""What stays as it is in the path of a request."""
LONGEST = 8192
"""Characters; servers take no longer header."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INLINE = "an inline secret is refused; write env:NAME or file:PATH, and put the secret there"


class Secrets:
    """Reads `env:NAME` and `file:PATH`, and redacts what it read.

    A relative path is below `base`. A secret is read again each time, so that it can be renewed while a sweep runs.
    """

    __slots__ = ("_base", "_environ", "_forms", "_hidden", "_read")

    def __init__(self, *, environ: Mapping[str, str] | None = None, base: Path | None = None):
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._base = base or Path()
        self._read: tuple[str, ...] = ()
        self._hidden: tuple[str, ...] = ()
        self._forms: dict[str, str] = {}

    def read(self, reference: str) -> str:
        """The secret that is meant. Raises `CredentialError` where there is none, or where others can read it."""
        kind, _, place = reference.partition(":")
        if kind == "env" and _VARIABLE.fullmatch(place):
            secret = self._of_environment(place)
        elif kind == "file" and place and place.isprintable():
            secret = self._of_file(self._base / Path(place).expanduser())
        else:
            raise CredentialError(_INLINE)
        if secret not in self._read:
            self._read += (secret,)
            self._learn()
        if not (secret.isascii() and secret.isprintable() and len(secret) <= LONGEST):
            raise CredentialError(f"what {reference} holds is no secret that can be sent: it must be one line of ASCII")
        return secret

    def hide(self, secret: str) -> None:
        """Redact this too, though it was not read here: a token that a provider gave. The last 32 are remembered."""
        if secret and secret not in self._hidden:
            self._hidden = (*self._hidden, secret)[-HIDDEN_AT_ONCE:]
            self._learn()

    def redact(self, text: str) -> str:
        """The text with *** for every secret known so far, also as URLs, JSON, HTML and basic auth write it."""
        folded = text.lower()
        patterns = [pattern for form, pattern in self._forms.items() if form in folded]
        if not patterns:
            return text  # nearly always, and a large answer is searched much faster than matched
        return re.sub("|".join(sorted(patterns, key=len, reverse=True)), MASK, text)

    def _learn(self) -> None:
        self._forms = {
            form: pattern for secret in (*self._read, *self._hidden) for form, pattern in _forms(secret).items()
        }

    def _of_environment(self, name: str) -> str:
        secret = self._environ.get(name, "").strip()
        if not secret:
            raise CredentialError(f"the environment variable {name} is not set; run: export {name}=...")
        return secret

    def _of_file(self, path: Path) -> str:
        try:
            # not to hang on a pipe that nobody writes to
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                mode = os.fstat(file).st_mode
                if not stat.S_ISREG(mode):
                    raise CredentialError(f"{path} is no regular file; write the secret to one, on one line")
                if stat.S_IMODE(mode) & 0o077:
                    raise CredentialError(f"others may read or change the secret in {path}; run: chmod 600 {path}")
                content = os.read(file, LONGEST + 3)
            finally:
                os.close(file)
        except OSError as error:
            why = error.strerror
        else:
            secret = content.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
            if not secret.strip():
                raise CredentialError(f"{path} is empty; write the secret there, on one line")
            return secret
        raise CredentialError(f"no secret can be read from {path} ({why}); write it there and run: chmod 600 {path}")

    def __repr__(self) -> str:
        return f"Secrets({len(self._read)} read)"


def _forms(secret: str) -> dict[str, str]:
    """Everything that spells a secret, in lower case, with the pattern to take it out by."""
    plain = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote(secret, safe=PATH_SAFE),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
    }
    around = "[A-Za-z0-9+/=]"  # characters that share their bits with the neighbours
    encoded = {core for core in _base64_cores(secret) if len(core) > 5}
    patterns = {core.lower(): f"{around}?{re.escape(core)}{around}{{0,3}}" for core in encoded}
    return patterns | {form.lower(): f"(?i:{re.escape(form)})" for form in plain}


def _base64_cores(secret: str) -> set[str]:
    """What base64 makes of a secret wherever in a longer text it begins, less the edges that its neighbours change."""
    data, cores = secret.encode(errors="replace"), set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        cores.add(text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
    return cores
