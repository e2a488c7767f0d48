"""Settings to paste into Cline, Continue and a shell (curl). The model id is the adapter's name."""

from __future__ import annotations

import json

from gridsweep.serving.access import KEY


def cline(url: str, model: str, length: int | None, *, key: bool) -> str:
    """Return the fields of Cline's settings."""
    fields = {
        "API Provider": "OpenAI Compatible",
        "Base URL": f"{url}/v1",
        "API Key": f"the value of {KEY}" if key else "any word, such as none",
        "Model ID": model,
    }
    if length:
        fields["Context Window Size"] = str(length)
    return "\n".join(f"{name + ':':<21}{value}" for name, value in fields.items())


def continue_(url: str, models: list[str], length: int | None, *, key: bool) -> str:
    """Return a config.yaml for Continue; `length` is the context in tokens, if the server tells it."""
    lines = ["name: gridsweep", "version: 0.0.1", "schema: v1", "models:"]
    for model in models:
        lines += [
            f"  - name: {json.dumps(model)}",
            "    provider: openai",
            f"    model: {json.dumps(model)}",
            f"    apiBase: {url}/v1",
            f"    apiKey: {'${{ secrets.' + KEY + ' }}' if key else 'none'}",
            "    roles: [chat, edit, apply]",
            *(["    defaultCompletionOptions:", f"      contextLength: {length}"] if length else []),
        ]
    return "\n".join(lines)


def curl(url: str, model: str, *, key: bool) -> str:
    """Return a curl command that sends a chat."""
    asked = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 64}
    bearer = f' \\\n  -H "Authorization: Bearer ${KEY}"' if key else ""
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{bearer} \\\n  -d '{json.dumps(asked)}'"


def ready(url: str, models: list[str], length: int | None, *, key: bool) -> str:
    """Return all three blocks; Cline and curl use the first model."""
    parts = {
        "Cline": cline(url, models[0], length, key=key),
        "Continue (config.yaml)": continue_(url, models, length, key=key),
        "curl": curl(url, models[0], key=key),
    }
    return "\n\n".join(f"--- {name}\n{text}" for name, text in parts.items())
