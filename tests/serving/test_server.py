"""The small server as its clients meet it: a process of its own, on loopback."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from gridsweep.serving.adapters import models

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PROMPT, QUESTION = "def main(", "Write a loop."
TEMPLATE = "### Instruction:\n{}\n\n### Response:\n"


@pytest.fixture(scope="module")
def peft(run_folder) -> Any:
    """Greedy text as plain PEFT and transformers write it: `peft("e00", prompt)`; None is the bare base."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gridsweep.train.model import TINY_QWEN2

    tokenizer = AutoTokenizer.from_pretrained(TINY_QWEN2)

    def text(adapter: str | None, prompt: str, tokens: int = 24) -> str:
        model = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, run_folder / "store/experiments" / adapter / "adapter")
        model.eval()
        given = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**given, max_new_tokens=tokens, do_sample=False)
        return tokenizer.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True)

    return text


def text_of(answer) -> str:
    assert answer.status == 200, answer.text
    choice = answer.json["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def streamed(answer) -> str:
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
    choices = [chunk["choices"][0] for chunk in answer.chunks if chunk["choices"]]
    return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)


def test_models_lists_the_best_adapter_first_and_the_base_last(server, run_folder):
    best_first = [a.experiment for a in models(run_folder) if a.experiment in ("e00", "e01")]
    listed = server.get("/v1/models").json["data"]
    assert [(m["id"], m["parent"]) for m in listed] == [
        *((name, "tiny-qwen2") for name in best_first),
        ("tiny-qwen2", None),
    ]
    assert str(run_folder) not in json.dumps(listed)  # paths of this machine are nobody's business
    assert [server.get(f"/v1/models/{card['id']}").json["id"] for card in listed] == [*best_first, "tiny-qwen2"]
    assert server.get("/v1/models/e09").status == 404 and server.get("/v1/models/a/b").status == 404
    assert {m["max_model_len"] for m in listed} == {2048}
    assert server.get("/health").status == 200


def test_greedy_text_is_pefts(server, peft):
    for name in ("e00", "e01"):
        assert text_of(server.complete(name)) == peft(name, PROMPT)
        assert text_of(server.chat(name)) == peft(name, TEMPLATE.format(QUESTION))
    assert text_of(server.complete("tiny-qwen2")) == peft(None, PROMPT)


def test_each_model_writes_its_own_text(server):
    texts = {name: text_of(server.complete(name)) for name in ("e00", "e01", "tiny-qwen2")}
    assert len(set(texts.values())) == 3


def test_requests_take_turns_and_do_not_mix(server):
    wanted = {name: text_of(server.complete(name)) for name in ("e00", "e01", "tiny-qwen2")}
    got = []

    def ask(name):
        got.append((name, text_of(server.complete(name))))

    threads = [threading.Thread(target=ask, args=(name,)) for name in [*wanted] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6 and all(text == wanted[name] for name, text in got)


@pytest.mark.parametrize("kind", ["complete", "chat"])
def test_a_stream_says_the_same_in_pieces(server, kind):
    ask = getattr(server, kind)
    whole, answer = ask("e01"), ask("e01", stream=True, stream_options={"include_usage": True})
    assert streamed(answer) == text_of(whole)
    *chunks, usage = answer.chunks
    assert usage["choices"] == [] and usage["usage"] == whole.json["usage"]
    assert [c["choices"][0]["finish_reason"] for c in chunks[-2:]] == [None, "length"]
    assert len({c["id"] for c in answer.chunks}) == 1 and len(chunks) > 5
    if kind == "chat":
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "usage" not in ask("e01", stream=True).chunks[-1]


def test_a_completion_repeats_its_prompt_where_echo_asks_for_it(server):
    whole = text_of(server.complete("e01"))
    assert text_of(server.complete("e01", echo=True)) == PROMPT + whole
    assert streamed(server.complete("e01", echo=True, stream=True)) == PROMPT + whole
    assert text_of(server.complete("e01", echo=False)) == text_of(server.complete("e01", echo=None)) == whole
    assert server.complete("e01", echo=True).json["usage"] == server.complete("e01").json["usage"]
    refused = server.chat("e01", echo=True)
    assert refused.status == 400 and "echo is not supported" in refused.json["error"]["message"]
    assert server.chat("e01", echo=False).status == 200


def test_usage_is_counted(server):
    usage = server.complete("e00", max_tokens=5).json["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert (
        usage["prompt_tokens"] < server.complete("e00", prompt=PROMPT * 3, max_tokens=5).json["usage"]["prompt_tokens"]
    )


def test_text_ends_before_a_stop(server):
    text = text_of(server.complete())
    stop = text[10:13]
    for answer in (server.complete(stop=stop), server.complete(stop=["never said", stop])):
        assert text_of(answer) == text[: text.index(stop)]
        assert answer.json["choices"][0]["finish_reason"] == "stop"
    answer = server.complete(stop=stop, stream=True)
    assert streamed(answer) == text[: text.index(stop)]
    assert answer.chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_seed_repeats_a_text(server):
    def drawn(seed, **more):
        return text_of(server.complete(temperature=1.0, seed=seed, **more))

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in (1, 2, 3, None)}) == 4
    assert drawn(5, top_p=1e-9) == text_of(server.complete())


def test_a_conversation_is_put_as_in_training(server, peft):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Write "}, {"type": "text", "text": "a loop."}]},
    ]
    asked = {"model": "e00", "messages": messages, "max_completion_tokens": 24, "temperature": 0, "tools": []}
    answer = server.ask("POST", "/v1/chat/completions", asked)
    assert text_of(answer) == peft("e00", TEMPLATE.format("Be brief.\n\nWrite a loop."))


def test_an_answer_is_cut_where_the_model_ends(server):
    long = "x = 1\n" * 1000
    answer = server.complete(prompt=long)
    assert answer.status == 400 and answer.json["error"]["code"] == "context_length_exceeded"
    assert server.complete(prompt="").status == 400
    near = server.complete(prompt="x = 1\n" * 405, max_tokens=100_000)
    assert near.status == 200 and near.json["usage"]["total_tokens"] <= 2048


def test_an_unknown_model_is_answered_with_those_there_are(server):
    answer = server.complete("gpt-4")
    assert answer.status == 404 and answer.json["error"]["code"] == "model_not_found"
    names = ", ".join(entry["id"] for entry in server.get("/v1/models").json["data"])
    assert f"choose from: {names}" in answer.json["error"]["message"]
    hostile = server.chat("\x1b[2J<script>\u2028")
    assert hostile.status == 404 and hostile.json["error"]["message"].isprintable()


def test_base_and_adapter_with_a_colon_is_no_model(server):
    answer = server.chat("tiny-qwen2:e01")
    assert answer.status == 404
    assert answer.json["error"]["message"].endswith("Use the adapter's name alone: e01")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"model": "e00"}',
        b'{"model": "e00", "prompt": 1}',
        b'{"model": "e00", "prompt": ["a", "b"]}',
        b'{"model": "e00", "prompt": "a", "max_tokens": 0}',
        b'{"model": "e00", "prompt": "a", "max_tokens": "many"}',
        b'{"model": "e00", "prompt": "a", "temperature": NaN}',
        b'{"model": "e00", "prompt": "a", "temperature": -1}',
        b'{"model": "e00", "prompt": "a", "top_p": 0}',
        b'{"model": "e00", "prompt": "a", "n": 2}',
        b'{"model": "e00", "prompt": "a", "stop": [""]}',
        b'{"model": "e00", "prompt": "a", "seed": 1e30}',
        b'{"model": "e00", "prompt": "\\ud800"}',
        b'{"model": "e00", "prompt": "a", "logprobs": 5}',
        b'{"model": "e00", "prompt": "a", "suffix": "b"}',
        b'{"model": "e00", "prompt": "a", "tools": [{"type": "function"}]}',
        b'{"model": "e00", "prompt": "a", "response_format": {"type": "json_object"}}',
        b'{"model": ' + b"[" * 100_000,
    ],
)
def test_a_bad_request_is_400_in_openais_form(server, body):
    answer = server.ask("POST", "/v1/completions", body)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error" and answer.json["error"]["message"]


def test_the_smallest_and_largest_numbers_are_taken(server):
    plain = text_of(server.complete("e01", max_tokens=4, temperature=0))
    for number in (1e-320, 5e-324, 1e-45, 1e-10):
        assert text_of(server.complete("e01", max_tokens=4, temperature=number)) == plain
        assert text_of(server.complete("e01", max_tokens=4, temperature=1, top_p=number)) == plain
    for seed in (-(2**63), 2**63 - 1, 0):
        assert server.complete("e01", max_tokens=4, seed=seed, temperature=2).status == 200
    assert server.complete("e01", max_tokens=10**400, stop=plain[:1]).status == 200


def test_fields_that_change_nothing_are_taken(server):
    harmless = {
        "tools": [],
        "logprobs": None,
        "response_format": {"type": "text"},
        "presence_penalty": 0.0,
        "user": "me",
    }
    assert server.complete("e01", **harmless).status == 200
    refused = server.complete("e01", response_format={"type": "json_object"}).json["error"]["message"]
    assert refused == "response_format is not supported by this server; leave it out, or serve with vLLM"


def test_idle_connections_hold_nobody_up(server):
    with ExitStack() as open_ones:
        for n in range(60):
            line = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            if n % 2:
                line.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        assert server.get("/v1/models").status == 200 and server.complete("e01").status == 200


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hello",
        [{"role": "user"} for _ in range(1001)],
        [{"role": "root", "content": "x"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
    ],
)
def test_bad_messages_are_400(server, messages):
    assert server.ask("POST", "/v1/chat/completions", {"model": "e00", "messages": messages}).status == 400


def test_no_other_route_is_there(server):
    for method, path in [("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/v1/load_lora_adapter")]:
        answer = server.ask(method, path, {} if method == "POST" else None)
        assert answer.status == 404 and "no such path" in answer.json["error"]["message"]
    assert server.get("/v1/completions").status == 405


def test_a_page_of_another_site_gets_nothing(server):
    assert server.get("/v1/models", Host="evil.example").status == 421
    assert server.get("/v1/models", Host=f"evil.example:{server.port}").status == 421
    assert server.get("/v1/models", Host="127.0.0.1.evil.example").status == 421
    assert server.get("/health", Host="evil.example").status == 421
    for name in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.1", f"[::1]:{server.port}"):
        assert server.get("/v1/models", Host=name).status == 200
    plain = server.ask("POST", "/v1/completions", {"model": "e00", "prompt": "x"}, Content_Type="text/plain")
    assert plain.status == 415
    preflight = server.ask("OPTIONS", "/v1/completions", Origin="https://evil.example")
    assert preflight.status == 405
    listed = server.get("/v1/models", Origin="https://evil.example")
    assert not any(name.startswith("access-control") for name in listed.headers)


def test_a_body_that_is_too_long_is_not_read_to_its_end(server):
    assert server.complete(prompt="x" * (4 << 20)).status == 413
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            for _ in range(200):
                line.sendall(block)
        except OSError:
            pass  # it has hung up
        line.settimeout(10)
        assert b" 413 " in line.recv(100)
    assert server.get("/health").status == 200


def test_a_client_that_leaves_holds_nobody_up(server):
    wanted = text_of(server.complete("e01"))
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
            body = json.dumps({"model": "e00", "prompt": "x", "max_tokens": 2000, "stream": True}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            line.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            assert line.recv(10).startswith(b"HTTP/1.1 2")
    assert text_of(server.complete("e01")) == wanted
