"""The instructions of docker/worker.Dockerfile, and its lock without what only a GPU needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCK = "locks/worker.txt"
BASE = r"nvidia/cuda:[\w.]+-base-ubuntu24\.04(@sha256:[0-9a-f]{64})?"
KNOWN = ("FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD")
PIP_LOCKED = ("--require-hashes", "--no-deps", "--only-binary=:all:")
"""Without one of these options, what the lock pins is not what is installed."""
ONLY_GPU = r"torch|triton|bitsandbytes|cuda-.*|nvidia-(?!ml-py$).*"


class UnknownStep(Exception):
    """An instruction of the Dockerfile that this script cannot do."""


@dataclass(frozen=True)
class Step:
    line: int
    name: str
    text: str


def parsed(text: str) -> list[list[Step]]:
    """Return the stages of a Dockerfile, each with its instructions. Raise `UnknownStep` for what cannot be done."""
    stages: list[list[Step]] = []
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#")]
    while lines:
        number, line = lines.pop(0)
        while line.endswith("\\"):
            line = line[:-1] + (lines.pop(0)[1] if lines else "")
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        step = Step(number, name, rest.strip())
        _check(step, [_alias(stage) for stage in stages])
        if name == "FROM":
            stages.append([])
        elif not stages:
            raise UnknownStep(f"line {number}: {name} before FROM")
        stages[-1].append(step)
    return stages


def _alias(stage: list[Step]) -> str | None:
    _, found, name = stage[0].text.partition(" AS ")
    return name if found else None


def _check(step: Step, stages: list[str | None]) -> None:
    """Raise `UnknownStep` unless this script does an instruction as Docker does."""
    base = step.text.partition(" AS ")[0]
    reason = None
    if step.name not in KNOWN:
        reason = "an unknown instruction"
    elif step.name == "FROM" and base not in stages and not re.fullmatch(BASE, base):
        reason = "neither NVIDIA's base image of Ubuntu 24.04 nor an earlier stage"
    elif step.name == "RUN" and step.text.startswith(("--", "[", "<<")):
        reason = "an unknown form of RUN"
    elif step.name == "RUN" and LOCK.rpartition("/")[2] in step.text:
        lacking = [option for option in PIP_LOCKED if option not in step.text.split()]
        reason = f"pip without {' '.join(lacking)}" if lacking else None
    elif step.name == "COPY":
        options = [word for word in step.text.split() if word.startswith("--")]
        unknown = [word for word in options if word.removeprefix("--from=") not in stages]
        reason = f"unknown options or stages: {' '.join(unknown)}" if unknown or "*" in step.text else None
    elif step.name == "CMD" and not step.text.startswith("["):
        reason = "CMD as a line of shell"
    if reason:
        raise UnknownStep(f"line {step.line}: {step.name} {step.text[:60]}: {reason}")


def apt_packages(stage: list[Step]) -> list[str]:
    """Return the Debian packages that a stage installs."""
    found = []
    for step in stage:
        if step.name == "RUN":
            for command in re.findall(r"apt-get install ([^&|;]+)", step.text):
                found += [word for word in command.split() if not word.startswith("-")]
    return found


def without_gpu(lock: str) -> tuple[str, list[str], str]:
    """Return a lock without what only a GPU needs, what was left out, and the version of torch."""
    kept, left_out = [], []
    for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        name, _, version = entry.split(" ", 1)[0].strip().partition("==")
        if re.fullmatch(ONLY_GPU, name):
            left_out.append(f"{name}=={version}")
        else:
            kept.append(entry)
    (torch,) = (each.partition("==")[2] for each in left_out if each.startswith("torch=="))
    return "".join(kept), [each for each in left_out if not each.startswith("torch==")], torch
