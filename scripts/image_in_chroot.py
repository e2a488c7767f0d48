"""Do the steps of docker/worker.Dockerfile in a chroot, without Docker or a GPU, and train four steps in the result.

    sudo .venv/bin/python scripts/image_in_chroot.py FOLDER [--keep] [pip options for torch: --index-url URL]

Needs root, debootstrap, 5 GB in FOLDER (which must be new or empty, and is emptied at the end without --keep), PyPI and
Debian's archive. Every instruction is read from the Dockerfile and run as it stands there; an unknown one ends the
script. What differs from the image:

    base       Debian 12 by debootstrap, with its Python 3.11, in place of NVIDIA's Ubuntu 24.04 with Python 3.12
    torch      the same version in its CPU build: by version, because its digest is not in the lock
    left out   what only a GPU needs: triton, and nvidia-* and cuda-* except nvidia-ml-py, the energy counter
    the pod    no seccomp profile, no limits of cpu and memory, and no network but the loopback

Everything is mounted in a mount namespace of its own, so nothing stays mounted however the script ends.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import worker_pod
from chroots import Image, Running, mount_system
from dockerfile_steps import LOCK, Step, UnknownStep, apt_packages, parsed, without_gpu

from gridsweep.executors.kubernetes.manifests.names import STORE

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "docker" / "worker.Dockerfile"
DEBIAN = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSED = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
"""Variables of this machine that a build sees, as Docker passes proxies on."""


class Table:
    """The steps that were done, with seconds and the size of the root file system after each."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, str]] = []

    @contextmanager
    def step(self, what: str, root: Path | None = None) -> Iterator[None]:
        print(f"-- {what}", flush=True)
        begun = time.monotonic()
        yield
        taken = time.monotonic() - begun
        self.rows.append((what, taken, f"{size(root) / 1e6:,.0f} MB" if root else ""))

    def __str__(self) -> str:
        wide = max(len(what) for what, *_ in self.rows)
        return "\n".join(f"{what:{wide}}  {seconds:6.1f} s  {after:>9}" for what, seconds, after in self.rows)


def size(root: Path) -> int:
    """Return the bytes of a tree on its own file system, as `du` counts them."""
    done = subprocess.run(["du", "-sx", "--block-size=1", root], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def debootstrap(root: Path) -> None:
    command = ["debootstrap", "--variant=minbase", DEBIAN, str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def copy(sources: list[Path], to: Path, *, into: bool) -> None:
    """Copy as COPY does: the content of folders, files under their names if `into` a folder, links as links."""
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, to, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target = to / source.name if into else to
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def build(folder: Path, pip_options: list[str], table: Table) -> Image:
    """Do all stages of the Dockerfile, and return the last one."""
    stages = parsed(DOCKERFILE.read_text())
    done: dict[str, Image] = {}
    with table.step(f"debootstrap {DEBIAN}", folder / "debian"):
        debootstrap(folder / "debian")
    image = None
    for number, stage in enumerate(stages):
        base, _, alias = stage[0].text.partition(" AS ")
        image = Image(folder / f"stage{number}")
        source = done[base].root if base in done else folder / "debian"
        subprocess.run(["cp", "-ax", source, image.root], check=True)
        if base in done:
            image.environment |= done[base].environment
            image.workdir, image.user, image.command = done[base].workdir, done[base].user, done[base].command
        done[alias or str(number)] = image
        if any(step.name == "RUN" for step in stage):
            mount_system(image.root)
        for step in stage[1:]:
            do(step, image, done, folder, pip_options, table)
    assert image is not None, "a Dockerfile has a stage"
    return image


def do(step: Step, image: Image, done: dict[str, Image], folder: Path, pip_options: list[str], table: Table) -> None:
    """Do one instruction in a stage's root."""
    words = shlex.split(step.text) if step.name in ("COPY", "ENV") else []
    match step.name:
        case "ENV":
            for word in words:
                name, _, value = word.partition("=")
                image.environment[name] = string.Template(value).substitute(image.environment)
        case "WORKDIR":
            image.workdir = str(Path("/", image.workdir, step.text))
            image.path(".").mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = step.text
        case "CMD":
            image.command = json.loads(step.text)
        case "COPY":
            copy_step(words, image, done)
        case "RUN":
            with table.step(f"RUN {step.text[:70]}", image.root):
                run_step(step, image)
            if LOCK.rpartition("/")[2] in step.text:
                with table.step("torch, in its CPU build", image.root):
                    install_torch(image, folder, pip_options)


def copy_step(words: list[str], image: Image, done: dict[str, Image]) -> None:
    *names, to = (word for word in words if not word.startswith("--"))
    origin = next((done[word.removeprefix("--from=")] for word in words if word.startswith("--from=")), None)
    sources = [origin.path(name) if origin else ROOT / name for name in names]
    target = image.path(to)
    copy(sources, target, into=to.endswith(("/", ".")) or len(names) > 1)
    if origin is None and LOCK in names:
        kept, left_out, _ = without_gpu((ROOT / LOCK).read_text())
        image.path(Path(to, Path(LOCK).name).as_posix()).write_text(kept)
        print(f"   left out of {LOCK}: {', '.join(left_out)}")


def run_step(step: Step, image: Image) -> None:
    """Run the line, with this machine's name servers, certificates and proxies."""
    shutil.copy2("/etc/resolv.conf", image.root / "etc" / "resolv.conf")
    more = {name: os.environ[name] for name in PASSED if name in os.environ}
    if CERTIFICATES.exists():  # on its tmpfs, so that no trace is left
        shutil.copy2(CERTIFICATES, image.root / "dev" / "shm" / "certificates.crt")
        more["PIP_CERT"] = "/dev/shm/certificates.crt"
    print(image.run(step.text, **more)[-2000:])


def install_torch(image: Image, folder: Path, pip_options: list[str]) -> None:
    """Fetch torch's CPU wheel for the image's Python with this machine's pip and settings, and install it there."""
    _, _, version = without_gpu((ROOT / LOCK).read_text())
    python = image.run("/opt/venv/bin/python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [f"--python-version={python}", f"--dest={folder / 'wheels'}", *pip_options, f"torch=={version}"]
    subprocess.run(command, check=True)
    (wheel,) = (folder / "wheels").glob("torch-*.whl")
    if "+cpu" not in wheel.name:
        sys.exit(f"pip took {wheel.name}, which is not the CPU build; add --index-url URL of one that has it")
    shutil.copy2(wheel, image.root / "dev" / "shm")
    image.run(f"/opt/venv/bin/pip install --no-cache-dir --no-deps /dev/shm/{wheel.name}")
    (image.root / "dev" / "shm" / wheel.name).unlink()


RAY = """\
ray start --head {options} --dashboard-agent-listen-port=52365 || exit 1
for url in localhost:52365/api/local_raylet_healthz localhost:8265/api/gcs_healthz; do
  for i in $(seq 60); do wget --tries 1 -T 10 -q -O- http://$url | grep success && continue 2; sleep 1; done
  echo "no answer of $url"; exit 1
done
ray job submit --address http://localhost:8265 -- {entrypoint}
"""
"""What KubeRay does: it starts the head by the RayJob's options, probes it by wget, and submits the job over HTTP."""


VERSIONS = """\
import platform, ray, torch
print("Python", platform.python_version(), "torch", torch.__version__, "ray", ray.__version__)
"""


def train(image: Image, folder: Path, table: Table) -> list[str]:
    """Train in the image as pods do, and return what came out, in words."""
    pod = worker_pod.rendered()
    if image.user != f"{pod.user}:{pod.group}":
        sys.exit(f"the image's user is {image.user}, the pod's {pod.user}:{pod.group}")
    said = []
    running = Running(image, pod, folder / "store", folder / "pod")
    try:
        running.run("sh", "-c", "touch /opt/venv/written")
    except SystemExit as refused:
        if "Read-only file system" not in str(refused):
            raise
    else:
        sys.exit("the root can be written to")
    with table.step("the image's own command: " + " ".join(image.command)):
        running.run(*image.command)
    with table.step(f"pod: {pod.entrypoint}"):
        running.run("bash", "-c", pod.entrypoint)
    said.append(f"worker: {worker_pod.judged(pod, running.volume)}")
    with table.step("pod: gridsweep --version"):
        said.append(running.run("gridsweep", "--version").strip())
    with table.step("pod: gridsweep check image.yaml"):
        checked = running.run("gridsweep", "check", f"{STORE}/image.yaml")
    said += [line for line in checked.splitlines() if " is valid: " in line]
    said.append(running.run("python", "-P", "-c", VERSIONS).strip())
    second = Running(image, pod, folder / "store-of-ray", folder / "pod-of-ray")
    options = " ".join(f"--{name}={value}" for name, value in pod.ray.items())
    with table.step("pod: the same as a job of a Ray head"):
        second.run("bash", "-c", RAY.format(options=options, entrypoint=pod.entrypoint))
    said.append(f"worker under Ray: {worker_pod.judged(pod, second.volume)}")
    return said


def inside(folder: Path, pip_options: list[str]) -> None:
    """Do it all, in the mount namespace that `main` has made, and print the table."""
    table = Table()
    said: list[str] = []
    try:
        image = build(folder, pip_options, table)
        said.append(f"apt packages: {' '.join(apt_packages(parsed(DOCKERFILE.read_text())[-1]))}")
        said.append(f"the root file system: {size(image.root) / 1e6:,.0f} MB")
        said += train(image, folder, table)
    finally:
        print("", table, "", *said, sep="\n", flush=True)


def main(arguments: list[str]) -> int:
    if "--inside" in arguments[:1]:
        inside(Path(arguments[1]), arguments[2:])
        return 0
    keep = "--keep" in arguments
    arguments = [each for each in arguments if each != "--keep"]
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    lacking = [each for each in ("debootstrap", "unshare", "setpriv", "ip") if shutil.which(each) is None]
    if os.geteuid() != 0 or lacking:
        sys.exit(f"this needs root, and {', '.join(lacking) or 'nothing else'}")
    parsed(DOCKERFILE.read_text())
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"{folder} is not empty; name a new folder")
    # What is mounted exists in the child's namespace only, so that emptying the folder here never reaches it.
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", sys.executable, "-u"]
    command += [__file__, "--inside", str(folder), *arguments[1:]]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = subprocess.Popen(command, start_new_session=True)
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if not keep:
            for each in folder.iterdir():
                shutil.rmtree(each)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UnknownStep as unknown:
        sys.exit(f"{DOCKERFILE.relative_to(ROOT)}: {unknown}")
