"""Secrets: reading them, and redacting them from all output."""

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
"""Characters that are not escaped in the path of a request."""
LONGEST = 8192
"""Maximum length in characters; servers accept no longer header."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INLINE = "an inline secret is refused; write env:NAME or file:PATH, and put the secret there"


class Secrets:
    """A reader of secrets, `env:NAME` or `file:PATH`, that also redacts them.

    A relative path is below `base`. A secret is read anew each time, so that it can be renewed while a sweep runs.
    """

    __slots__ = ("_base", "_environ", "_forms", "_hidden", "_read")

    def __init__(self, *, environ: Mapping[str, str] | None = None, base: Path | None = None):
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._base = base or Path()
        self._read: tuple[str, ...] = ()
        self._hidden: tuple[str, ...] = ()
        self._forms: dict[str, str] = {}

    def read(self, reference: str) -> str:
        """Return the secret of a reference. Raises `CredentialError` if missing, invalid or readable by others."""
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
        """Redact a secret that was not read here, such as a token from a provider. The last 32 are remembered."""
        if secret and secret not in self._hidden:
            self._hidden = (*self._hidden, secret)[-HIDDEN_AT_ONCE:]
            self._learn()

    def redact(self, text: str) -> str:
        """Return the text with *** for each known secret, also in its URL, JSON, HTML and basic-auth encodings."""
        folded = text.lower()
        patterns = [pattern for form, pattern in self._forms.items() if form in folded]
        if not patterns:
            return text  # the usual case; substring search is much faster than regex matching on a large answer
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
            # O_NONBLOCK avoids hanging on a pipe without a writer
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
    """Return all encodings of a secret in lower case, each with the pattern that removes it."""
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
    around = "[A-Za-z0-9+/=]"  # characters that share bits with neighbouring bytes
    encoded = {core for core in _base64_cores(secret) if len(core) > 5}
    patterns = {core.lower(): f"{around}?{re.escape(core)}{around}{{0,3}}" for core in encoded}
    return patterns | {form.lower(): f"(?i:{re.escape(form)})" for form in plain}


def _base64_cores(secret: str) -> set[str]:
    """Return the base64 of a secret at each alignment, without the edge characters that neighbouring bytes change."""
    data, cores = secret.encode(errors="replace"), set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        cores.add(text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
    return cores
