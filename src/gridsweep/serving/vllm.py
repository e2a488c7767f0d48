"""vLLM's command line: the flags that adapters need, and no flag that opens access."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from gridsweep.errors import AdapterError
from gridsweep.serving.servable import Servable, shown, together


def installed() -> list[str] | None:
    """Return the command of vLLM: beside this Python, on the path, or as a module; None if it is not installed."""
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent))
    if found := beside or shutil.which("vllm"):
        return [found]
    return [sys.executable, "-P", "-m", "vllm.entrypoints.cli.main"] if find_spec("vllm") else None


def argv(
    base: str,
    adapters: Sequence[Servable],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    command: Sequence[str] = ("vllm",),
    chat_template: str | None = None,
    generation_config: str | None = None,
) -> list[str]:
    """Return the command that serves adapters on their base, a folder or a Hugging Face id.

    The base is served under its id in the sweep, each adapter under its own name. `chat_template` is a file in place of
    the base's, `generation_config` the folder of a file in place of the base's. The key is passed in the environment.
    Raise `AdapterError` for incompatible adapters.
    """
    rank, model = together(adapters), adapters[0].base
    for word in (base, model.id, model.revision or ""):
        if word.startswith("-"):
            raise AdapterError(f"{shown(word)} would be read as an option; rename the model or its revision")
    words = [*command, "serve", base, "--served-model-name", model.id]
    if model.revision and not Path(base).is_dir():
        words += ["--revision", model.revision, "--tokenizer-revision", model.revision]
    words += ["--enable-lora", "--lora-modules", *(_module(adapter) for adapter in adapters)]
    words += ["--max-lora-rank", str(rank), "--max-loras", str(len(adapters))]
    words += ["--host", host, "--port", str(port), "--allowed-origins", "[]"]
    words += ["--generation-config", generation_config] if generation_config else []
    return words + (["--chat-template", chat_template] if chat_template else [])


def environment(variables: Mapping[str, str], key: str | None, *, offline: bool) -> dict[str, str]:
    """Return vLLM's environment: the key, no usage reports, and no loading of adapters by clients."""
    dropped = ("GRIDSWEEP_API_KEY", "VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    kept = {name: value for name, value in variables.items() if name not in dropped}
    kept |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if offline:
        kept["HF_HUB_OFFLINE"] = "1"
    return kept | ({"VLLM_API_KEY": key} if key else {})


def _module(adapter: Servable) -> str:
    """Return an adapter as `name=path`, or as JSON if the path holds `=` or `,`."""
    path = str(adapter.folder)
    if "=" in path or "," in path:
        return json.dumps({"name": adapter.name, "path": path, "base_model_name": adapter.base.id})
    return f"{adapter.name}={path}"
