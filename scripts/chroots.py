"""Root file systems in which programs run as in a container: as a build runs them, and as a pod does.

All mounts are made in the mount namespace of the caller, which must have one of its own: they end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import worker_pod

from gridsweep.executors.kubernetes.manifests.names import STORE

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DOCKER_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


class Image:
    """One stage: its root file system, and what ENV, WORKDIR, USER and CMD have said so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = dict(DOCKER_ENVIRONMENT)
        self.workdir, self.user, self.command = "/", "0:0", list[str]()

    def run(self, line: str, **more: str) -> str:
        """Run a line of shell as root, and return what it printed. Raise `CalledProcessError` if it fails."""
        words = ["chroot", str(self.root), "/bin/sh", "-c", 'cd "$0" && eval "$1"', self.workdir, line]
        done = subprocess.run(words, env={**self.environment, **more}, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def path(self, name: str) -> Path:
        """Return the path, on this machine, of a file of the image."""
        return self.root / os.path.normpath(Path("/", self.workdir, name)).lstrip("/")


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def mount_system(root: Path) -> None:
    """Mount /proc, /sys and a /dev with a container's few devices. All ends with the mount namespace."""
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
    mount("-t", "tmpfs", "-o", "mode=755,nosuid", "dev", root / "dev")
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount("--bind", Path("/dev", name), root / "dev" / name)
    (root / "dev" / "fd").symlink_to("/proc/self/fd")
    (root / "dev" / "ptmx").symlink_to("pts/ptmx")
    (root / "dev" / "pts").mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620", "devpts", root / "dev" / "pts")
    (root / "dev" / "shm").mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777,size=1g", "shm", root / "dev" / "shm")


class Running:
    """A pod of the image: a read-only root, /tmp and /dev/shm in memory, a volume, and no capability."""

    def __init__(self, image: Image, pod: worker_pod.Pod, volume: Path, at: Path) -> None:
        self.image, self.pod, self.volume, self.root = image, pod, volume, at
        store = STORE.lstrip("/")
        for path in (at, image.root / store):  # a container's runtime makes the mount points
            path.mkdir(exist_ok=True)
        for path in (volume, volume / "image.yaml"):
            path.write_text(worker_pod.SPEC) if path.suffix else path.mkdir()
            os.chown(path, pod.user, pod.group)
        (image.root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")  # as the kubelet does
        mount("--bind", image.root, at)
        mount("-o", "remount,bind,ro", at)
        mount_system(at)
        mount("-t", "tmpfs", "-o", "mode=1777,size=2g", "tmp", at / "tmp")
        mount("--bind", volume, at / store)

    def run(self, *command: str) -> str:
        """Run a program as the pod's user, with its environment. Return its output; exit with that if it fails."""
        drop = ["setpriv", f"--reuid={self.pod.user}", f"--regid={self.pod.group}", "--clear-groups"]
        drop += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', self.image.workdir, *command]
        # Processes end with the first one, as in a container; addresses other than the loopback cannot be reached.
        alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root / 'proc'}"]
        environment = {**self.image.environment, **self.pod.environment}
        words = [*alone, "sh", "-c", 'ip link set lo up && exec "$0" "$@"', "env", "-i"]
        words += [*(f"{name}={value}" for name, value in environment.items()), "chroot", str(self.root), *drop, *there]
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=worker_pod.LIMIT_SECONDS
        )
        if done.returncode:
            for log in self.volume.rglob("log.txt"):
                print(log.read_text()[-4000:], file=sys.stderr)
            sys.exit(f"{' '.join(command)[:80]} ends with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout
