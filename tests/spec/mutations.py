"""Specs that somebody has broken: bytes and words of the examples changed at random, and known traps."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from gridsweep.errors import DEADLINE, SIGNAL, USAGE, GridsweepError
from gridsweep.spec import load, template

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = [
    "on", "off", "no", "yes", "y", "n", "~", "null", "true", "TRUE", ".inf", "-.inf", ".nan", "0o17", "017",
    "0x1F", "1_000", "1e400", "-1", "0", "1e-400", "9" * 400, "2024-06-10", "2024-06-10T16:00:00Z",
    "2024-13-45", "12:30:45", "0:00", "!!python/object:os.system", "!!binary aGk=", "!!set {a, b}",
    "!!timestamp 2024", "&a *a", "*nothing", "<<: *a", "[", "]", "{", "}", "[[[[", "- - -", ": :", "? a", "|",
    ">", "%YAML 9.9", "---", "...", "\t", "'", '"', "#", "@", "`", "\ufeff", "\x00", "\x07", "\x85", "\u2028",
    "\ud7ff", "é", "🦙", "a" * 5000, "{a: {b: {c: {d: 1}}}}", "[1, 2, 3]", "24h", "-3h", "1e9h", "p20", "p-1",
    "p101", "1/8", "1/0", "model", "space", "tiers",
]  # fmt: skip
TOKEN = re.compile(r"[\w.-]+|[^\w\s]|\s+")
ALLOWED = (USAGE, SIGNAL, DEADLINE)
LONGEST = 1.0
"""Seconds of this process's time that reading a spec may take."""


def sources() -> list[bytes]:
    """Return the texts to be broken: all examples, and what `gridsweep init` writes."""
    return [*(path.read_bytes() for path in sorted(EXAMPLES.rglob("*.yaml"))), template().encode()]


def traps() -> Iterator[tuple[str, bytes]]:
    """Yield whole specs with something in them that parsers have been caught by, each with a name."""
    good = (EXAMPLES / "demo.yaml").read_bytes()
    yield "empty", b""
    yield "only NUL", b"\x00" * 1000
    yield "a NUL within", good[:200] + b"\x00" + good[200:]
    yield "CRLF", good.replace(b"\n", b"\r\n")
    yield "CR", good.replace(b"\n", b"\r")
    yield "a BOM", b"\xef\xbb\xbf" + good
    yield "two BOMs", b"\xef\xbb\xbf" * 2 + good
    yield "UTF-16", good.decode().encode("utf-16")
    yield "latin-1", good + "\n# é\n".encode("latin-1")
    yield "tabs", good.replace(b"  ", b"\t")
    yield "twice", good + good
    yield "two documents", good + b"\n---\n" + good
    yield "a list", b"- 1\n" * 100
    yield "ten megabytes of comments", good + b"# " + b"x" * 10_000_000
    yield "ten megabytes of one key", b"name: " + b"x" * 10_000_000
    yield "ten megabytes of keys", b"".join(b"k%d: 1\n" % n for n in range(1_000_000))
    yield "deep lists", b"a: " + b"[" * 100_000
    yield "deep maps", b"{a: " * 50_000
    yield "deep indents", b"".join(b" " * n + b"a:\n" for n in range(3000))
    yield (
        "anchors that multiply",
        b"\n".join(
            [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
            + [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)]
        ),
    )
    yield "anchors in the space", good + b"\nx: &x [1]\nspace: &s {r: *x, alpha: *s}\n"
    yield "an anchor within itself", b"space: &a {r: *a}\n"
    yield "merges", b"a: &a {<<: *a}\n" + good
    yield "a million points", good + b"\nspace: {r: [%s]}\n" % b", ".join(b"%d" % n for n in range(1, 100_000))
    yield "keys twice", re.sub(rb"^(devices: .*)$", rb"\1\n\1", good, flags=re.MULTILINE)
    yield "a key of a list", b"? [a, b]\n: 1\n" + good
    yield "a key of a map", b"? {a: b}\n: 1\n" + good
    yield "numbers without end", b"devices: " + b"9" * 100_000 + b"\n" + good


def mutated(seed: int) -> Iterator[bytes]:
    """Yield broken specs without end, the same for the same seed."""
    random_, texts = random.Random(seed), sources()
    while True:
        text = random_.choice(texts)
        for _ in range(random_.choice([1, 1, 1, 2, 3, 8])):
            text = random_.choice([_bytes, _tokens, _lines, _words])(text, random_)
        yield text


def _bytes(text: bytes, random_: random.Random) -> bytes:
    at = random_.randrange(len(text) + 1)
    return (
        text[:at]
        + random_.choice([b"", random_.randbytes(1), random_.randbytes(4)])
        + text[at + random_.randrange(3) :]
    )


def _tokens(text: bytes, random_: random.Random) -> bytes:
    """Swap, repeat or drop words."""
    tokens = TOKEN.findall(text.decode("utf-8", "replace"))
    if not tokens:
        return text
    one, other = random_.randrange(len(tokens)), random_.randrange(len(tokens))
    tokens[one] = random_.choice([tokens[other], "", tokens[one] * 3, tokens[one] + tokens[other]])
    return "".join(tokens).encode()


def _words(text: bytes, random_: random.Random) -> bytes:
    """Put a treacherous word in the place of a value."""
    tokens = TOKEN.findall(text.decode("utf-8", "replace"))
    places = [n for n, token in enumerate(tokens) if not token.isspace()]
    if places:
        tokens[random_.choice(places)] = random_.choice(WORDS)
    return "".join(tokens).encode("utf-8", "surrogatepass")


def _lines(text: bytes, random_: random.Random) -> bytes:
    lines = text.split(b"\n")
    one, other = random_.randrange(len(lines)), random_.randrange(len(lines))
    lines[one] = random_.choice([lines[other], b"", b"  " + lines[one], lines[one].lstrip(), lines[one] + lines[other]])
    return b"\n".join(lines)


def judged(path: Path, text: bytes) -> tuple[str, str]:
    """Read a spec; return `read` or `refused`, and what breaks the promise, "" if nothing does."""
    path.write_bytes(text)
    begun = time.process_time()
    what, wrong = "read", ""
    try:
        load(path)
    except GridsweepError as error:
        what = "refused"
        if error.exit_code not in ALLOWED or (not str(error).isprintable() and "\n" not in str(error)):
            wrong = f"{type(error).__name__} with {error.exit_code}: {str(error)[:300]!r}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {str(error)[:300]!r}"
    taken = time.process_time() - begun
    return what, wrong or (f"it took {taken:.2f} s" if taken > LONGEST else "")
