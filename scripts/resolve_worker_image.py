"""Resolve what docker/worker.Dockerfile installs, with pip's local settings off, and compare it with its constraints.

    python scripts/resolve_worker_image.py            # exit code 1 where the set no longer resolves to the same
    python scripts/resolve_worker_image.py --write    # write the constraints anew

Needs the network, a minute and a half, and downloads metadata only. Wheels are those for the image's Python and
platform; conditions such as `python_version < "3.12"` are asked of the Python that runs this, so run it with 3.12 where
there is one. What it misses, `pip check` finds when the image is built.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "docker" / "constraints-worker.txt"
EXTRAS = ("train", "report", "kubernetes")
RAY = "ray[default]>=2.54"
HEAD = """\
# All that docker/worker.Dockerfile installs: Python 3.12, Linux, x86-64, CUDA 13.
# Made by scripts/resolve_worker_image.py --write, which resolves the same set and can check that it still does.
"""
PLATFORMS = ("manylinux1", "manylinux2010", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(5, 40)))


def main(arguments: list[str]) -> int:
    write = arguments == ["--write"]
    if arguments and not write:
        print(__doc__, file=sys.stderr)
        return 2
    resolved = resolve(ROOT / "constraints.txt" if write else CONSTRAINTS)
    text = HEAD + "".join(f"{name}=={version}\n" for name, version in resolved)
    if write:
        CONSTRAINTS.write_text(text)
    same = text == CONSTRAINTS.read_text()
    print(f"{len(resolved)} packages; {'as' if same else 'NOT as'} in {CONSTRAINTS.name}")
    return 0 if same else 1


def resolve(constraints: Path) -> list[tuple[str, str]]:
    """(name, version) of every package, sorted; the versions of `constraints` hold where it names one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    roots = [*project["dependencies"], RAY]
    for extra in EXTRAS:
        roots += project["optional-dependencies"][extra]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--isolated", "--no-cache-dir"]
        command += ["--quiet", "--ignore-installed", "--only-binary=:all:", f"--report={report}"]
        command += [f"--target={folder}/nowhere", "--python-version=3.12", "--implementation=cp"]
        command += ["--abi=cp312", "--abi=abi3", "--abi=none"]
        command += [f"--platform={platform}_x86_64" for platform in PLATFORMS]
        command += [f"--constraint={constraints}", *roots]
        subprocess.run(command, check=True)
        installed = json.loads(report.read_text())["install"]
    found = {(item["metadata"]["name"], item["metadata"]["version"]) for item in installed}
    return sorted(found, key=lambda each: each[0].lower())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
