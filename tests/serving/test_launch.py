"""`serve`: the choice, the checks, the words, the end; against the real small server, and against doubles."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest
import yaml
from asking import Server

from adapter_files import published, stand_in_run, write_adapter
from gridsweep.errors import EXECUTOR, USAGE
from gridsweep.render import documents
from gridsweep.serving import access, blocks, launch, vllm
from gridsweep.serving.access import AccessError, ServingError, check_free, key_for
from gridsweep.serving.adapters import best, models
from gridsweep.serving.child import running
from gridsweep.serving.client import Client
from gridsweep.serving.servable import AdapterError, Servable
from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import Model

KEY = "a-key-of-enough-letters"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


# vLLM's arguments


TINY = Model("tiny-qwen2")


def adapters(*ranks: int, base: Model = TINY, place: str = "/runs/demo") -> list[Servable]:
    return [Servable(f"e{i:02}", Path(f"{place}/e{i:02}/adapter"), base, rank) for i, rank in enumerate(ranks)]


def test_vllms_arguments():
    assert vllm.argv("/models/tiny", adapters(4), port=8001) == shlex.split(
        "vllm serve /models/tiny --served-model-name tiny-qwen2 "
        "--enable-lora --lora-modules e00=/runs/demo/e00/adapter --max-lora-rank 8 --max-loras 1 "
        "--host 127.0.0.1 --port 8001 --allowed-origins []"
    )


def test_vllms_arguments_for_several_adapters_of_a_hub_model():
    base = Model("Qwen/Qwen2.5-7B-Instruct", "a09a354")
    words = vllm.argv(base.id, adapters(16, 32, 64, base=base), host="0.0.0.0", command=["/venv/bin/vllm"])
    assert words == shlex.split(
        "/venv/bin/vllm serve Qwen/Qwen2.5-7B-Instruct --served-model-name Qwen/Qwen2.5-7B-Instruct "
        "--revision a09a354 --tokenizer-revision a09a354 --enable-lora "
        "--lora-modules e00=/runs/demo/e00/adapter e01=/runs/demo/e01/adapter e02=/runs/demo/e02/adapter "
        "--max-lora-rank 64 --max-loras 3 --host 0.0.0.0 --port 8000 --allowed-origins []"
    )


def test_vllm_gets_the_adapters_best_first(run_folder):
    """vLLM lists the base first, then the adapters in this order."""
    words = vllm.argv("m", launch.chosen(run_folder, ["e02", "e00", "e01"]))
    first = words.index("--lora-modules") + 1
    assert [w.partition("=")[0] for w in words[first : first + 3]] == [a.experiment for a in models(run_folder)]


def test_a_path_that_vllm_would_take_apart_travels_as_json():
    (word,) = [w for w in vllm.argv("m", adapters(4, place="/a=b,c")) if w.startswith("{")]
    assert json.loads(word) == {"name": "e00", "path": "/a=b,c/e00/adapter", "base_model_name": "tiny-qwen2"}


@pytest.mark.parametrize("base", [Model("--trust-remote-code"), Model("m", "--api-key=x")])
def test_no_name_becomes_an_option_of_vllm(base):
    with pytest.raises(AdapterError, match="read as an option"):
        vllm.argv(base.id, adapters(4, base=base))


def test_the_key_reaches_vllm_in_the_environment_alone():
    variables = {"PATH": "/bin", "GRIDSWEEP_API_KEY": "x", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    assert vllm.environment(variables, KEY, offline=True) == {
        "PATH": "/bin",
        "VLLM_API_KEY": KEY,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    assert "VLLM_API_KEY" not in vllm.environment({"VLLM_API_KEY": "old"}, None, offline=False)


def test_vllm_is_found_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    assert vllm.installed() is None
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert vllm.installed() == [str(program)]


@pytest.mark.train
@pytest.mark.parametrize("encoding", [1, 2])
def test_vllm_gets_the_bundled_bases_folder_and_the_prompt_of_training(tmp_path, encoding):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    command = launch.vllm_command(adapters(4), "127.0.0.1", 8000, KEY, tmp_path / "template", Taught(encoding))
    base, template = command.argv[2], command.argv[-1]
    assert (Path(base) / "model.safetensors").exists() and template == str(tmp_path / "template")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ 7 * 7 }}\nGo."}]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # as transformers has it
    text = environment.from_string(Path(template).read_text()).render(messages=messages, add_generation_prompt=True)
    assert text == "### Instruction:\nBe brief.\n\n{{ 7 * 7 }}\nGo.\n\n### Response:\n"
    assert command.variables["HF_HUB_OFFLINE"] == "1" and KEY not in " ".join(command.argv)
    with pytest.raises(Exception, match=r"cannot find the base model .*: the model folder"):
        launch.located(Model("./not-there"), Taught())


@pytest.mark.train
def test_vllm_stops_where_answers_end_by_the_sweeps_own_template(tmp_path):
    template = "{% for m in messages %}{{ m.role + ':' + m.content + '<|pad|>' }}{% endfor %}"
    asks = template + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    base = Model("tiny-qwen2", chat_template=asks)
    command = launch.vllm_command(adapters(4, base=base), "127.0.0.1", 8000, None, tmp_path / "t", Taught(2))
    assert command.argv[-4:] == ["--generation-config", str(tmp_path), "--chat-template", str(tmp_path / "t")]
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [0, 1]
    assert (tmp_path / "t").read_text() == asks
    ours = launch.own_command(adapters(4, base=base), "127.0.0.1", 8000, None, tmp_path / "t", Taught(2))
    assert f"--chat-template={tmp_path / 't'}" in ours.argv and "--encoding=2" in ours.argv


# Who may listen, with which key


def test_a_host_that_others_reach_needs_a_key(tmp_path):
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert key_for(host, {}) is None
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(AccessError, match=f"--host: {host} can be reached"):
            key_for(host, {})
        assert key_for(host, {"GRIDSWEEP_API_KEY": KEY}) == KEY
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    assert key_for("0.0.0.0", {"GRIDSWEEP_API_KEY_FILE": str(file)}) == KEY
    for key in ("short", "with spaces in the middle", "né-assez-de-lettres-ascii", "a\nb" * 10):
        with pytest.raises(AccessError, match="at least 16") as caught:
            key_for("127.0.0.1", {"GRIDSWEEP_API_KEY": key})
        assert key not in str(caught.value) and caught.value.exit_code == USAGE
    with pytest.raises(AccessError, match="cannot read the key in"):
        key_for("0.0.0.0", {"GRIDSWEEP_API_KEY_FILE": str(tmp_path / "none")})


def test_a_port_in_use_is_said_before_anything_starts():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        port = other.server_address[1]
        with pytest.raises(ServingError, match=f"port {port}: Address already in use") as caught:
            check_free("127.0.0.1", port)
        assert caught.value.exit_code == EXECUTOR
    assert check_free("127.0.0.1", port) == port
    with pytest.raises(AccessError, match="is not a port"):
        check_free("127.0.0.1", 70_000)
    with pytest.raises(ServingError, match="no-such-host"):
        check_free("no-such-host.invalid", 8000)


# What is served


def test_the_best_is_served_where_none_is_named(run_folder):
    assert [a.name for a in launch.chosen(run_folder)] == [best(run_folder)[0].experiment]
    best_first = [a.experiment for a in models(run_folder) if a.experiment != "e01"]
    for named in (["e02", "e00"], ["e00", "e02"]):
        assert [a.name for a in launch.chosen(run_folder, named)] == best_first
    with pytest.raises(AdapterError, match=r"'e' matches \d+ experiments; type one of"):
        launch.chosen(run_folder, ["e"])


def test_an_adapter_of_another_base_is_not_served(tmp_path):
    folder = stand_in_run(tmp_path / "run", 1)
    shutil.rmtree(folder / "store/experiments/e00/adapter")
    with published(folder, "e00") as draft:
        write_adapter(draft, base_model_name_or_path="Qwen/Qwen2.5-Coder-7B")
    with pytest.raises(AdapterError, match=r"Qwen/Qwen2\.5-Coder-7B.*tiny-qwen2"):
        launch.serve(folder, backend="own")


# What is said


def test_the_start_says_how_long_the_trainings_conversations_were():
    told = "trained on conversations of at most 384 tokens, question and answer together"
    assert launch._taught(384, "") == f"{told}; answers beyond that length are untested"
    cut = "12 samples cut at 384 tokens"
    assert launch._taught(384, cut) == f"{told} ({cut}); answers beyond that length are untested"


def test_the_blocks_name_the_adapter_and_never_the_key():
    url = "http://127.0.0.1:8000"
    text = blocks.ready(url, ["e00", "e01"], 2048, key=True)
    assert "Model ID:            e00\n" in text and "Base URL:            http://127.0.0.1:8000/v1\n" in text
    config = yaml.safe_load(blocks.continue_(url, ["e00", "e01"], 2048, key=True))
    assert {model["defaultCompletionOptions"]["contextLength"] for model in config["models"]} == {2048}
    assert "Context Window Size: 2048\n" in text and "contextLength: 2048\n" in text
    unknown = blocks.ready(url, ["e00"], None, key=False)
    assert "Context" not in unknown and "contextLength" not in unknown
    assert [model["model"] for model in config["models"]] == ["e00", "e01"]
    assert {model["apiBase"] for model in config["models"]} == {"http://127.0.0.1:8000/v1"}
    assert config["models"][0]["apiKey"] == "${{ secrets.GRIDSWEEP_API_KEY }}"
    assert "Authorization: Bearer $GRIDSWEEP_API_KEY" in blocks.curl(url, "e00", key=True)
    assert "Authorization" not in blocks.curl(url, "e00", key=False)
    assert access.url("::1", 8000) == "http://[::1]:8000"


# A server that does not do as it should


@contextmanager
def double(replies):
    """A server that answers each path with (status, body)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = replies.get(self.path, (404, b""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = reply

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{served.server_address[1]}", seconds=5)
        finally:
            served.shutdown()
            thread.join()


def listing(*entries: tuple[str, str | None]) -> bytes:
    return json.dumps({"data": [{"id": id, "parent": parent} for id, parent in entries]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, listing(("tiny-qwen2", None)), "does not list e00"),
        (200, listing(("e00", "other")), "a base other than tiny-qwen2"),
        (200, b"[]", "answered"),
        (200, b"<html>", "did not answer"),
        (500, b"\x1b[2Jbroken", r"answered 500: '\\x1b\[2Jbroken'"),
        (200, b"{}", "does not list e00"),
        (200, b'{"data": [1, {"name": "e00"}]}', "does not list e00"),
    ],
)
def test_a_server_without_our_adapter_is_no_success(status, body, words):
    with double({"/v1/models": (status, body)}) as client, pytest.raises(ServingError, match=words):
        launch.checked(client, adapters(4))


def test_a_server_that_cannot_chat_is_no_success():
    replies = {
        "/v1/models": (200, listing(("e00", "tiny-qwen2"))),
        "/v1/completions": (200, b'{"choices": [{"text": "x"}]}'),
        "/v1/chat/completions": (200, b'{"choices": []}'),
    }
    with double(replies) as client, pytest.raises(ServingError, match="holds no text"):
        launch.checked(client, adapters(4))


def test_nobody_there_is_said():
    with pytest.raises(ServingError, match="did not answer"):
        Client("http://127.0.0.1:9", seconds=1).verify(["e00"], "tiny-qwen2")


def test_a_child_that_ends_is_reported_with_its_words(tmp_path):
    code = "import sys; print('loading'); sys.exit('RuntimeError: no memory')"
    with (
        running([sys.executable, "-c", code], os.environ, tmp_path / "log") as child,
        pytest.raises(ServingError, match=r"exit 1\); last output: RuntimeError: no memory \(log: .*log\)"),
    ):
        child.wait_until(lambda: False, lambda: False, 20)
    assert (tmp_path / "log").stat().st_mode & 0o77 == 0
    with pytest.raises(ServingError, match="cannot start"), running(["/no/such"], {}, tmp_path / "log"):
        pass


def test_a_child_that_never_is_ready_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("gridsweep.serving.child.GRACE", 0.3)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    with (
        pytest.raises(ServingError, match=r"not ready after 2 s; last output: deaf"),
        running([sys.executable, "-c", code], os.environ, tmp_path / "log") as child,
    ):
        child.wait_until(lambda: False, lambda: False, 2)
    assert gone(child.process.pid)


# The verb, with a double in the server's place, and as a process with the real one

DOUBLE = """
import http.server, json, sys
entry = {"max_model_len": 512, "chat_template": "the training's"}
MODELS = {"data": [{"id": "tiny-qwen2", "parent": None, **entry}, {"id": "e01", "parent": "tiny-qwen2"}]}
TEXT = {"choices": [{"text": "\\x1b[2J", "message": {"content": "hello"}}]}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(MODELS if self.command == "GET" else TEXT).encode())
    do_POST = do_GET
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_once_shows_that_it_works_and_ends(run_folder, monkeypatch):
    def command(adapters, host, port, key, *_):
        return launch.Command([sys.executable, "-c", DOUBLE, str(port)], os.environ, ("a double",))

    monkeypatch.setattr(launch, "own_command", command)
    said: list[str] = []
    launch.serve(run_folder, ["e01"], port=0, once=True, backend="own", tell=said.append)
    text = "\n".join(said)
    assert "note: a double" in text and "listed: e01 on tiny-qwen2" in text
    assert r"completion: '\x1b[2J'" in text and "chat: 'hello'" in text
    assert "note: /v1/models lists 'tiny-qwen2' first, as vLLM does; the best adapter is e01" in text
    assert "no chat template" in text and "Model ID:            e01" in text and "Context Window Size: 512" in text
    assert "ready at" not in text


def test_for_programs_one_document_says_where_it_serves(run_folder, monkeypatch, gridsweep):
    def command(adapters, host, port, key, *_):
        return launch.Command([sys.executable, "-c", DOUBLE, str(port)], os.environ)

    monkeypatch.setattr(launch, "own_command", command)
    monkeypatch.setattr(vllm, "installed", lambda: None)
    code, out, err = gridsweep("serve", run_folder, "e01", "--port", 0, "--once", "--json")
    told = json.loads(out)
    assert code == 0 and "listed: e01" in err
    jsonschema.validate(told, documents.schema(launch.Served, "serve"))
    assert (told["base"], told["ids"], told["max_model_len"], told["needs_key"]) == ("tiny-qwen2", ["e01"], 512, False)
    assert told["trained_len"] == 384
    assert told["url"].startswith("http://127.0.0.1:") and Path(told["log"]).exists()


SERVE = """
import sys
from gridsweep.serving.launch import serve
serve(sys.argv[1], ["e01", "e00"], port=0, backend="own", tell=lambda line: print(line, flush=True))
"""


@contextmanager
def verb(run_folder, **variables):
    """(the verb as a process, its server's id, all it said until it was ready)."""
    command = [sys.executable, "-c", SERVE, str(run_folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables})
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("ready at"):
                break
        else:
            pytest.fail("".join(said))
        (server,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        yield process, server, "".join(said)
        assert gone(server)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.train
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_however_the_verb_ends_its_server_ends(run_folder, end):
    with verb(run_folder) as (process, _, said):
        best_first = ", ".join(a.experiment for a in models(run_folder) if a.experiment != "e02")
        assert f"listed: {best_first} on tiny-qwen2" in said and "lists" not in said.replace("listed", "")
        assert "note: trained on conversations of at most 384 tokens, question and answer together" in said
        process.send_signal(end)
        assert process.wait(30) == (-signal.SIGKILL if end == signal.SIGKILL else 0)


@pytest.mark.train
def test_with_a_key_only_health_is_open_and_ctrl_c_ends_it(run_folder):
    with verb(run_folder, GRIDSWEEP_API_KEY=KEY) as (process, child, said):
        assert "Authorization: Bearer $GRIDSWEEP_API_KEY" in said and KEY not in said
        assert KEY not in Path(f"/proc/{child}/cmdline").read_text()
        server = Server(int(said.split("ready at http://127.0.0.1:")[1].split(";")[0]))
        assert server.get("/health").status == 200
        assert server.get("/v1/models").status == 401
        for word in ("", KEY, "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", "Bearer \xff"):
            answer = server.get("/v1/models", Authorization=word)
            assert answer.status == 401 and KEY not in answer.text
        assert server.get("/v1/models", Authorization=f"Bearer {KEY}").status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.train
def test_the_server_refuses_what_the_check_refuses(tmp_path):
    folder = write_adapter(tmp_path / "a", base_model_name_or_path="other")
    asked = [sys.executable, "-m", "gridsweep.serving.server", "--base", "tiny-qwen2", "--adapter", f"e00={folder}"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "error: cannot serve the adapter e00" in done.stderr and "'other'" in done.stderr
    done = subprocess.run([*asked, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "a key is needed" in done.stderr
