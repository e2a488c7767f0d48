"""Say which build of torch pip would take, and how much it would download if that is the CUDA one.

    python scripts/torch_build.py [pip options such as -c constraints.txt or --index-url URL]

Asks pip for a dry run; downloads nothing but metadata. Prints nothing for a CPU build. With GRIDSWEEP_ASSERT_CPU=1 it
exits 1 for a CUDA build.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen


def resolved(options: list[str], *, alone: bool) -> list[dict[str, dict[str, str]]]:
    """What pip would install for torch, by itself or with all it needs."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), *(["--no-deps"] if alone else []), *options, "torch"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        packages: list[dict[str, dict[str, str]]] = json.loads(report.read_text())["install"]
        return packages


def size(url: str) -> int:
    """Bytes of a package file."""
    parts = urlparse(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).stat().st_size
    with urlopen(Request(url, method="HEAD"), timeout=20) as answer:
        return int(answer.headers.get("Content-Length", 0))


def main(options: list[str]) -> int:
    (torch,) = resolved(options, alone=True)
    needs = torch["metadata"].get("requires_dist", [])
    if not any(name.startswith(("nvidia-", "cuda-")) for name in needs):
        return 0
    packages = resolved(options, alone=False)
    try:
        total = f"{sum(size(package['download_info']['url']) for package in packages) / 1e9:.1f} GB"
    except OSError:
        total = "about 3 GB"
    print(
        f"pip takes the CUDA build of torch {torch['metadata']['version']}: {len(packages)} packages, "
        f"{total} to download.\n"
        "Without an NVIDIA GPU, stop here (Ctrl-C) and take the CPU build, about 0.2 GB:\n"
        "  make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu",
        flush=True,
    )
    return 1 if os.environ.get("GRIDSWEEP_ASSERT_CPU") else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (subprocess.CalledProcessError, ValueError, KeyError):
        sys.exit(0)  # only a courtesy: the installation itself will say what is wrong
