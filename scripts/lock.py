"""Write the lock files: every package that make or the worker's image installs, with the digests of its files.

    .venv/bin/python scripts/lock.py            # exit code 1 where a lock no longer is what the constraints say
    .venv/bin/python scripts/lock.py --write    # write them anew; after `make check`, which installs all extras

    locks/run.txt      for `make demo`: the core with the extras train, report and live
    locks/dev.txt      for `make test`: all extras but s3fs of the extra remote, whose fsspec comes with train
    locks/worker.txt   for docker/worker.Dockerfile

Versions are those of constraints.txt and docker/constraints-worker.txt. Digests are PyPI's, of wheels for CPython 3.11
to 3.14 on Linux and of the source. torch is in the image's lock only: elsewhere its build is the user's choice, by
TORCH_INDEX, and each index has files of its own.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.request import Request, urlopen

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).parent.parent
RUN = ("train", "report", "live")
DEV = (*RUN, "parquet", "serve", "ray", "kubernetes", "optuna", "4bit", "dev")
BUILD = "hatchling"
"""What builds the project itself, without a build environment of its own."""
TORCH = ("torch", "triton")
"""Left out with what only they need: see above."""
HEAD = "# Made by scripts/lock.py from {source}; installed with --no-deps --require-hashes.\n"
PYTHONS = ("py3", "py2.py3", *(f"{kind}3{minor}" for kind in ("cp", "py") for minor in range(11, 15)))


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    pins = pinned(ROOT / "constraints.txt")
    image = ROOT / "docker" / "constraints-worker.txt"
    wanted = {
        "run": ({name: pins[name] for name in needed(RUN, pins)}, "constraints.txt"),
        "dev": ({name: pins[name] for name in needed(DEV, pins)}, "constraints.txt"),
        "worker": (pinned(image), f"docker/{image.name}"),
    }
    if not arguments:
        wrong = [lock for lock, (versions, _) in wanted.items() if locked(ROOT / "locks" / f"{lock}.txt") != versions]
        print(f"not as the constraints say: {', '.join(wrong)}" if wrong else "the locks are as the constraints say")
        return 1 if wrong else 0
    (ROOT / "locks").mkdir(exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        found = {pin for versions, _ in wanted.values() for pin in versions.items()}
        digests = dict(zip(found, pool.map(digests_of, found), strict=True))
    for lock, (versions, source) in wanted.items():
        lines = [
            f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in digests[name, version])
            for name, version in sorted(versions.items())
        ]
        (ROOT / "locks" / f"{lock}.txt").write_text(HEAD.format(source=source) + "\n".join(lines) + "\n")
        print(f"locks/{lock}.txt: {len(versions)} packages")
    return 0


def pinned(path: Path) -> dict[str, str]:
    """Return the versions in a file of constraints, by normalized name."""
    pairs = (line.split("==") for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def locked(path: Path) -> dict[str, str]:
    """Return the versions in a lock file; nothing if there is none."""
    text = path.read_text() if path.exists() else ""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.M))


def needed(extras: Iterable[str], pins: dict[str, str]) -> set[str]:
    """Return the packages that the project needs with some extras, as those installed here say, without torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], BUILD]
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    open_, seen = [Requirement(line) for line in asked], set[tuple[str, frozenset[str]]]()
    while open_:
        requirement = open_.pop()
        name, wanted = normal(requirement.name), frozenset(requirement.extras)
        if name in TORCH or (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed; run `make check` first") from None
        for line in lines:
            each = Requirement(line)
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                open_.append(each)
    if unpinned := {name for name, _ in seen} - pins.keys():
        raise SystemExit(f"constraints.txt does not pin {', '.join(sorted(unpinned))}")
    return {name for name, _ in seen}


def digests_of(pin: tuple[str, str]) -> list[str]:
    """Return the sha256 of each file of a release that an installer may take, sorted."""
    name, version = pin
    ask = Request(f"https://pypi.org/simple/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urlopen(ask, timeout=60) as answer:
        files = json.load(answer)["files"]
    found = sorted(file["hashes"]["sha256"] for file in files if suits(file["filename"], version))
    if not found:
        raise SystemExit(f"PyPI has no files of {name} {version}")
    return found


def suits(filename: str, version: str) -> bool:
    """Return whether a file is a release's source, or a wheel of it for a Python and a platform that are supported."""
    try:
        if not filename.endswith(".whl"):
            return str(parse_sdist_filename(filename)[1]) == version
        _, of, _, tags = parse_wheel_filename(filename)
    except (InvalidSdistFilename, InvalidWheelFilename):
        return False
    return str(of) == version and any(map(_supported, tags))


def _supported(tag: Tag) -> bool:
    python = tag.interpreter in PYTHONS or (tag.abi == "abi3" and tag.interpreter.startswith("cp3"))
    return python and (
        tag.platform == "any" or ("linux" in tag.platform and tag.platform.endswith(("x86_64", "aarch64")))
    )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
