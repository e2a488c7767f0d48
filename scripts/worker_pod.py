"""The work of one pod of the worker's image, without a cluster: four training steps, as a rendered RayJob says.

    python scripts/worker_pod.py IMAGE     # in a container of that image: read-only, without a network or a GPU

scripts/image_in_chroot.py does the same in a chroot. The user, the environment, the mounts and the program are read
from the manifest that gridsweep renders, so what passes here is what a pod does.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gridsweep import __version__, load
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.names import STORE
from gridsweep.records.attempts import AttemptFolder

SPEC = """\
name: image
model: tiny-qwen2
dataset: {id: stdlib, train_samples: 32, validation_samples: 8}
recipe: {steps: 4, batch_size: 2, accumulation: 1, max_length: 256, checkpoint_every: 2}
space: {r: [8], alpha: [16], lr: [1e-3], dropout: [0.0]}
design: grid
devices: 1
carbon: {provider: trace, file: solar-valley}
clock: {replay: {from: "2024-06-11T01:00:00Z", speed: auto}}
tiers: [{name: day, threshold: 1000, max_delay: 24h}]
estimates: {duration: 1h, power_w: 15}
rungs: none
"""
MOUNTS = {STORE, "/tmp", "/dev/shm"}
LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Pod:
    """What a RayJob says of its container."""

    user: int
    group: int
    environment: dict[str, str]
    entrypoint: str
    ray: dict[str, str]
    """The options of `ray start`."""
    attempt: str
    """The attempt's folder, relative to the volume."""
    experiment: str


def rendered() -> Pod:
    """Return the pod of the one experiment of `SPEC`. Exit if its manifest asks for what is not done here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.yaml")
        path.write_text(SPEC)
        sweep = load(path)
    manifests = bundle(sweep, cluster_of(sweep, "suspend")).manifests
    (spec,) = (each["spec"] for each in manifests if each["kind"] == "RayJob")
    head = spec["rayClusterSpec"]["headGroupSpec"]
    pod = head["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    if mounts != MOUNTS or not container["securityContext"]["readOnlyRootFilesystem"]:
        sys.exit(f"the RayJob mounts {sorted(mounts)}, or writes to its root; this is not done here")
    # The kubelet turns `$$(` back into `$(`.
    environment = {each["name"]: each["value"].replace("$$(", "$(") for each in container["env"]}
    (experiment,) = (each.id for each in sweep.experiments)
    attempt = head["template"]["metadata"]["annotations"]["gridsweep.io/attempt"]
    store = Path(environment["GRIDSWEEP_STORE"]).relative_to(STORE)
    return Pod(
        pod["securityContext"]["runAsUser"],
        pod["securityContext"]["runAsGroup"],
        environment,
        spec["entrypoint"],
        head["rayStartParams"],
        str(store / "stints" / attempt),
        experiment,
    )


def judged(pod: Pod, volume: Path) -> str:
    """Return what was trained, in words. Exit, with the end of the worker's log, if it was not."""
    folder = AttemptFolder(volume / pod.attempt)
    result = folder.result()
    adapter = folder.path / "adapters" / pod.experiment / "adapter_model.safetensors"
    outcome = result.outcomes[0] if result and not result.error and result.outcomes else None
    if outcome is None or outcome.status != "done" or not math.isfinite(outcome.train_loss or math.nan):
        log = folder.path / "log.txt"
        print(log.read_text()[-4000:] if log.exists() else f"no log in {folder.path}", file=sys.stderr)
        sys.exit(f"the worker did not train: {result}")
    if not adapter.is_file():
        sys.exit(f"{adapter} is missing")
    return f"{outcome.status}, training loss {outcome.train_loss:.3f}, adapter of {adapter.stat().st_size:,} bytes"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    (image,) = arguments
    pod = rendered()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        volume = Path(folder, "store")
        volume.mkdir()
        volume.chmod(0o777)
        (volume / "image.yaml").write_text(SPEC)
        (volume / "image.yaml").chmod(0o644)
        command = ["docker", "run", "--rm", "--read-only", f"--user={pod.user}:{pod.group}", "--network=none"]
        command += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:exec,mode=1777"]
        command += ["--shm-size=1g", f"--volume={volume}:{STORE}"]
        command += [f"--env={name}={value}" for name, value in pod.environment.items()]
        checks = (
            ["gridsweep", "--version"],
            ["gridsweep", "check", f"{STORE}/image.yaml"],
            ["bash", "-c", pod.entrypoint],
        )
        for each in checks:
            begun = time.monotonic()
            done = subprocess.run([*command, image, *each], timeout=LIMIT_SECONDS)
            print(f"{' '.join(each)}: {time.monotonic() - begun:.0f} s, exit code {done.returncode}", flush=True)
            if done.returncode:
                return 1
        print(f"gridsweep {__version__} in {image}: {judged(pod, volume)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
