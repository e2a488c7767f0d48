"""Where secrets are read from, and that nothing shows them."""

from __future__ import annotations

import base64
import html
import json
import os
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.errors import CredentialError
from gridsweep.grid.http.secrets import Secrets

PRINTED = st.characters(min_codepoint=33, max_codepoint=126)
CANARY = "canary-0123+/= &'x"


def holding(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_is_read_from_the_environment():
    assert Secrets(environ={"TOKEN": "abc\n"}).read("env:TOKEN") == "abc"


@pytest.mark.parametrize("environ", [{}, {"TOKEN": ""}, {"TOKEN": "  "}])
def test_a_variable_that_is_missing_or_empty_says_what_to_set(environ):
    with pytest.raises(CredentialError, match="export TOKEN="):
        Secrets(environ=environ).read("env:TOKEN")


def test_a_secret_is_read_from_a_file_less_one_newline(tmp_path):
    assert Secrets().read(f"file:{holding(tmp_path, b' abc ' + bytes([10]))}") == " abc "
    assert Secrets(base=tmp_path).read("file:token") == " abc "


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_helps(tmp_path, mode):
    path = holding(tmp_path, b"abc", mode)
    with pytest.raises(CredentialError, match=f"chmod 600 {path}"):
        Secrets().read(f"file:{path}")


def test_a_file_that_is_missing_empty_a_folder_or_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    holding(tmp_path, b"\n")
    secrets = Secrets(base=tmp_path)
    for name, words in {"none": "No such file", "token": "is empty", "pipe": "regular file", ".": "regular"}.items():
        with pytest.raises(CredentialError, match=words):
            secrets.read(f"file:{name}")


@pytest.mark.parametrize("content", [b"abc\ndef", b"a\x00b", "schlüssel".encode(), b"\xff\xfe", b"x" * 9000])
def test_what_no_header_can_carry_is_refused_and_not_echoed(tmp_path, content):
    with pytest.raises(CredentialError, match="one line of ASCII") as caught:
        Secrets().read(f"file:{holding(tmp_path, content)}")
    assert content.decode(errors="replace") not in str(caught.value)


@pytest.mark.parametrize("reference", [CANARY, f"env:{CANARY}", "env:", "file:", f"token:{CANARY}", f"file:\n{CANARY}"])
def test_an_inline_secret_is_refused_without_echo(reference):
    with pytest.raises(CredentialError, match="inline secret is refused") as caught:
        Secrets(environ={}).read(reference)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40), st.text("äöü", max_size=20)
)
def test_no_encoding_of_a_secret_survives_redaction(secret, user):
    secrets = Secrets(environ={"TOKEN": secret})
    secret = secrets.read("env:TOKEN")
    secrets.hide("the token of a log-in")
    basic = base64.b64encode(f"{user}:".encode() + secret.encode()).decode()
    for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret), repr(secret)):
        assert form.strip("\"'") not in secrets.redact(f"<{form}> {form} the token of a log-in")
    assert html.escape(secret) not in secrets.redact(html.escape(secret))
    assert secret not in secrets.redact(secret.upper() + secret.lower() + secret)
    left = secrets.redact(f"Basic {basic}!").removeprefix("Basic ").removesuffix("!")
    head = left.partition("***")[0]
    assert "***" in left and not left.partition("***")[2].strip("*")
    assert len(base64.b64decode(head[: len(head) // 4 * 4])) <= len(user.encode()) + 1


def test_text_without_a_secret_is_left_alone():
    secrets = Secrets(environ={"TOKEN": CANARY})
    assert secrets.redact("quiet") == "quiet"
    secrets.read("env:TOKEN")
    assert secrets.redact("quiet") == "quiet"
    assert secrets.redact(f"a {CANARY} b") == "a *** b"


def test_of_hidden_tokens_the_latest_are_remembered_and_those_read_always():
    secrets = Secrets(environ={"TOKEN": CANARY})
    secrets.read("env:TOKEN")
    for i in range(100):
        secrets.hide(f"session-{i:04}")
    assert secrets.redact(f"{CANARY} session-0099") == "*** ***"
    assert len(secrets._forms) < 35 * 12


def test_no_repr_shows_a_secret():
    secrets = Secrets(environ={"TOKEN": CANARY})
    secrets.read("env:TOKEN")
    assert CANARY not in repr(secrets) + str(secrets)
