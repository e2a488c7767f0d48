"""`gridsweep serve`: check the adapters, start a server, verify it, print how to use it, keep it running."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from gridsweep.errors import AdapterError, ServingError
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.interrupt import Interrupt
from gridsweep.serving import blocks, vllm
from gridsweep.serving.access import KEY, KEY_FILE, check_free, is_loopback, key_for, url
from gridsweep.serving.adapters import best, named, sealed
from gridsweep.serving.bases import located
from gridsweep.serving.child import running
from gridsweep.serving.client import Client
from gridsweep.serving.servable import Servable, servable, shown, together
from gridsweep.serving.taught import Taught

Backend = Literal["vllm", "own"]
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Command:
    """A command line to start, its environment variables, and notes for the user."""

    argv: list[str]
    variables: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Served:
    """A verified server: its address, the names of the base and of the adapters (best first), and its longest context.

    `trained_len` is the longest conversation of the training in tokens, question and answer together.
    """

    url: str
    base: str
    ids: tuple[str, ...]
    max_model_len: int | None
    needs_key: bool
    log: Path
    trained_len: int
    schema_version: int = 1


def _silent(served: Served) -> None:
    """Do nothing: the default for `ready`."""


def chosen(folder: str | Path, experiments: Sequence[str] = ()) -> list[Servable]:
    """Return the checked adapters to serve, best first: the named ones (by id or its first characters), else the best.

    Raise `AdapterError` for an adapter that cannot be served, `SpecError` if there is no sweep.
    """
    base = RunFolder(Path(folder)).read().sweep.model
    if experiments:
        adapters = sorted(named(folder, experiments), key=lambda adapter: adapter.place)
    else:
        adapters = [best(folder)[0]]
    checked = [servable(adapter.experiment, adapter.path, base) for adapter in adapters]
    for adapter in adapters:
        sealed(adapter)
    together(checked)
    if base.id in (adapter.name for adapter in checked):
        raise AdapterError(f"{base.id} names both the base model and an adapter, so clients cannot tell them apart")
    return checked


def serve(
    folder: str | Path,
    experiments: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    once: bool = False,
    backend: Backend | None = None,
    tell: Callable[[str], None] = print,
    ready: Callable[[Served], None] = _silent,
    patience: timedelta = PATIENCE,
) -> None:
    """Serve adapters of the sweep in a folder until interrupted; with `once`, only until the server is verified.

    Use vLLM if it is installed, else the small server. `port` 0 picks a free port. `ready` is called once the server is
    verified. Raise `AdapterError`, `AccessError`, `ServingError`.
    """
    adapters = chosen(folder, experiments)
    key = key_for(host, os.environ)
    port = check_free(host, port)
    interrupt = Interrupt()
    with interrupt.installed():
        run = RunFolder(Path(folder))
        state, template = run.state, run.state / "chat_template.jinja"
        sweep = run.read()
        taught = Taught(sweep.constants.encoding, sweep.submitted_at)
        if backend == "vllm" or (backend is None and vllm.installed()):
            command = vllm_command(adapters, host, port, key, template, taught)
        else:
            command = own_command(adapters, host, port, key, template, taught)
        tell(f"starting: {' '.join(map(shlex.quote, command.argv))}")
        own = [sweep.sweep.recipe_of(sweep.standings[adapter.name].experiment) for adapter in adapters]
        trained = max(recipe.max_length for recipe in own)
        for note in (*command.notes, _taught(trained, sweep.facts.get("truncated", ""))):
            tell(f"note: {note}")
        with running(command.argv, command.variables, state / "serve.log") as child:
            near = Client(url("localhost" if host in ("0.0.0.0", "::") else host, port), key)
            if not child.wait_until(near.healthy, interrupt, patience.total_seconds()):
                return
            for line in checked(near, adapters):
                tell(line)
            child.check()  # if this server is still alive, the answers came from it
            names = [adapter.name for adapter in adapters]
            length = near.verify(names, adapters[0].base.id)[0].get("max_model_len")
            room = length if isinstance(length, int) else None
            tell("\n" + blocks.ready(url(host, port), names, room, key=bool(key)))
            ready(Served(url(host, port), adapters[0].base.id, tuple(names), room, bool(key), child.log, trained))
            if not is_loopback(host):
                tell("\nnote: keys and texts are not encrypted; put a proxy with TLS in front of the server")
            if once:
                return
            tell(f"\nready at {url(host, port)}; log: {child.log}; stop with Ctrl-C")
            while not interrupt.event.wait(0.5):
                child.check()
    tell("stopped")


def _taught(tokens: int, cut: str) -> str:
    """Return what is known of the length of answers: no conversation of the training was longer than `tokens`.

    `cut` says how many were longer in the data; empty if none was.
    """
    told = f"trained on conversations of at most {tokens} tokens, question and answer together"
    return f"{told}{f' ({cut})' if cut else ''}; answers beyond that length are untested"


def checked(client: Client, adapters: Sequence[Servable]) -> list[str]:
    """Verify a server and return lines on the results: each id is listed, the first adapter completes and chats.

    Raise `ServingError` if a check fails.
    """
    names = [adapter.name for adapter in adapters]
    entry, first = client.verify(names, adapters[0].base.id)
    lines = [f"listed: {', '.join(names)} on {adapters[0].base.id}"]
    lines.append(f"completion: {shown(client.complete(names[0], 'def main(', 12))}")
    lines.append(f"chat: {shown(client.chat(names[0], 'Say hello.', 12))}")
    if first != names[0]:
        lines.append(f"note: /v1/models lists {shown(first)} first, as vLLM does; the best adapter is {names[0]}")
    if entry.get("chat_template") == "the training's":
        lines.append("note: the model has no chat template; chats use the prompt format of the training")
    return lines


def own_command(
    adapters: Sequence[Servable], host: str, port: int, key: str | None, template: Path, taught: Taught
) -> Command:
    """Return the command of the small server; a template of the sweep's own is written to `template`.

    Raise `ServingError` if a package that the server needs is not installed.
    """
    if missing := [name for name in ("torch", "transformers", "peft", "fastapi", "uvicorn") if not find_spec(name)]:
        raise ServingError(
            f"neither vLLM nor {', '.join(missing)} is installed here; "
            "pip install 'gridsweep[train,serve]', or vllm on a machine with a GPU"
        )
    base = adapters[0].base
    argv = [sys.executable, "-P", "-m", "gridsweep.serving.server", f"--base={base.id}"]
    argv += [f"--revision={base.revision}"] if base.revision else []
    if base.chat_template is not None:
        _write(template, base.chat_template)
        argv += [f"--chat-template={template}"]
    argv += [f"--encoding={taught.encoding}", *([f"--date={taught.date.isoformat()}"] if taught.date else [])]
    argv += [f"--adapter={adapter.name}={adapter.folder}" for adapter in adapters]
    argv += ["--host", host, "--port", str(port), "--leave-with-parent"]
    variables = {name: value for name, value in os.environ.items() if name not in (KEY, KEY_FILE)}
    note = "vLLM is not installed; this is a small server for trials that makes one token at a time"
    return Command(argv, variables | ({KEY: key} if key else {}), (note,))


def vllm_command(
    adapters: Sequence[Servable], host: str, port: int, key: str | None, template: Path, taught: Taught
) -> Command:
    """Return the command of vLLM.

    If the base's own chat template does not write the prompts of training, one that does is written to `template`; if
    the base's generation does not stop where answers end, a configuration that does is written beside it.
    """
    base = adapters[0].base
    where, text, generation = located(base, taught)
    notes: tuple[str, ...] = ()
    if text is not None:
        _write(template, text)
        notes = ("chats use the prompt format of the training, because the model's own chat template differs or lacks",)
    if generation is not None:
        _write(template.parent / "generation_config.json", json.dumps(generation))
    argv = vllm.argv(
        where,
        adapters,
        host=host,
        port=port,
        command=vllm.installed() or ("vllm",),
        chat_template=str(template) if text is not None else None,
        generation_config=str(template.parent) if generation is not None else None,
    )
    return Command(argv, vllm.environment(os.environ, key, offline=Path(where).is_dir()), notes)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServingError(f"cannot write {path}: {error.strerror}; check the folder") from None
