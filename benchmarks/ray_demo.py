"""The 21 experiments of the demo on a local Ray head and as processes of this machine: the same losses, every digit.

    python benchmarks/ray_demo.py [FOLDER]

Starts a head on loopback with two `gpu_slot`s and ends it again (needs the extras `train` and `ray`). The grid and the
clock are the demo's; only the policy is `immediate`, so that no time is spent waiting. Exits 1 where a loss differs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gridsweep import Sweep, load
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import run
from gridsweep.state.state import State
from gridsweep.sweep.clusters import ExecutorChoice, RayCluster
from gridsweep.sweep.sweep import PolicyChoice

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "executors"))

from ray_head import Head  # noqa: E402


def timed(sweep: Sweep, folder: Path) -> tuple[State, float]:
    """Run a sweep to its end; its state, and how long that took, in seconds."""
    begun = time.perf_counter()
    code = run(sweep, folder).exit_code
    assert code == 0, f"the run in {folder} ended with {code}"
    return RunFolder(folder).read(), time.perf_counter() - begun


def main(folder: Path) -> int:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sweep = replace(load(ROOT / "examples" / "demo.yaml"), policy=PolicyChoice("immediate"))
    head = Head()
    try:
        cluster = RayCluster(head.address, resource="gpu_slot")
        there, ray_s = timed(replace(sweep, executor=ExecutorChoice("ray", ray=cluster)), folder / "ray")
    finally:
        head.end()
    here, local_s = timed(sweep, folder / "local")
    print(f"{'experiment':<34}{'local':>22}{'ray':>22}")
    different = 0
    for id, standing in here.standings.items():
        other = there.standings[id]
        assert standing.outcome and other.outcome
        losses = [
            (o.train_loss, o.validation_loss, o.initial_validation_loss) for o in (standing.outcome, other.outcome)
        ]
        different += losses[0] != losses[1]
        mark = "" if losses[0] == losses[1] else "   DIFFERENT"
        print(f"{id:<34}{losses[0][1]!r:>22}{losses[1][1]!r:>22}{mark}")
    tries = sum(len(standing.attempts) for standing in there.standings.values())
    print(f"{len(here.standings)} experiments, {different} different; local {local_s:.0f} s, Ray {ray_s:.0f} s")
    print(f"{tries} jobs; {(ray_s - local_s) * len(sweep.devices) / tries:.1f} s more a job on each of the devices")
    return 1 if different else 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) == 2 else scratch)))
