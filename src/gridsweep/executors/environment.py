"""The environment of a worker: what it needs, by an allow-list, and not what the loop holds: tokens of providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase

from gridsweep.errors import SpecError
from gridsweep.sweep.sweep import Sweep

PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE",
    "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONMALLOC", "PYTHONOPTIMIZE",
    "VIRTUAL_ENV", "CONDA_*", "CUDA_*", "NVIDIA_*", "ROCR_*", "HIP_*", "HSA_*",
    "NCCL_*", "TORCH_*", "PYTORCH_*", "TRITON_*", "OMP_*", "MKL_*", "OPENBLAS_*", "MALLOC_*", "HF_*",
    "TRANSFORMERS_*", "TOKENIZERS_*", "XDG_*", "*_PROXY", "*_proxy", "SSL_CERT_*", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "SLURM_*", "RAY_*",
    "GRIDSWEEP_STORE", "GRIDSWEEP_WORKER", "GRIDSWEEP_STEP_SECONDS", "GRIDSWEEP_MISBEHAVE",
)  # fmt: skip
"""Names of variables that a worker gets; `*` stands for anything.

Of Python's own and gridsweep's each is named: some of them run code (PYTHONSTARTUP), others hold a server's key
(GRIDSWEEP_API_KEY)."""


def passed(environ: Mapping[str, str], sweep: Sweep) -> dict[str, str]:
    """Return the variables for a sweep's workers: those of the allow-list, without its secrets, and those of its `env`.

    Raise `SpecError` if `env` refers to a variable that is not set.
    """
    secrets = secret_names(sweep)
    kept = {name: value for name, value in environ.items() if name not in secrets and _allowed(name)}
    return kept | added(environ, sweep)


def withheld(environ: Mapping[str, str], sweep: Sweep) -> list[str]:
    """Return the names of the variables that a sweep's workers do not get, sorted."""
    return sorted(environ.keys() - passed(environ, sweep).keys())


def added(environ: Mapping[str, str], sweep: Sweep) -> dict[str, str]:
    """Return the variables of a sweep's `env`; `env:NAME` stands for the value of a variable of the loop."""
    found = {}
    for name, value in sweep.env:
        source = value.removeprefix("env:")
        if source != value and source not in environ:
            what = f"refers to the variable {source}, which is not set"
            raise SpecError(what, where=f"env.{name}", remedy="set it, or remove this key")
        found[name] = value if source == value else environ[source]
    return found


def secret_names(sweep: Sweep) -> set[str]:
    """Return the variables that a sweep names as the secret of a provider or of a cluster."""
    return {name for part in (sweep.carbon, sweep.executor) for name in _references(part)}


def _references(value: object) -> set[str]:
    if isinstance(value, str):
        return {value.removeprefix("env:")} if value.startswith("env:") else set()
    if isinstance(value, tuple | list):
        return {name for each in value for name in _references(each)}
    if is_dataclass(value):
        return {name for field in fields(value) for name in _references(getattr(value, field.name))}
    return set()


def _allowed(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in PASSED)
