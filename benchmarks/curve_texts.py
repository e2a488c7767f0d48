"""Texts of the families of curves, and the tiny bases that are trained on half of them.

Every text is on the machine already: the standard library, the installed packages, /usr/include, or made from a seed.
A document is in one of three sets by a hash of its name: half for the base, the rest for LoRA, of which a quarter is
held out for validation. Which packages are installed differs between machines, so a digest of the samples is kept.
"""

from __future__ import annotations

import hashlib
import json
import random
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gridsweep.train import stdlib
from gridsweep.train.samples import Sample
from gridsweep.train.tiny_base import train_tokenizer

MOST = 40_000  # characters of a document that are used


@dataclass(frozen=True, slots=True)
class Shape:
    """A base: its kind, sizes, vocabulary, and how long it is trained before any adapter."""

    kind: str  # qwen2 or llama
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int  # 258 or less: bytes
    steps: int  # of 16 rows of 64 tokens


# -- documents: (name, text)


def documents(source: str) -> list[tuple[str, str]]:
    """Return the documents of a source, sorted by a hash of their names so that folders are mixed."""
    found = {"stdlib": _stdlib, "library": _library, "prose": _prose, "headers": _headers, "records": _records}[source]
    unique = {hashlib.sha256(text.encode()).hexdigest(): (name, text[:MOST]) for name, text in found()}
    return sorted(unique.values(), key=lambda pair: _digest(pair[0]))


def _stdlib() -> Iterator[tuple[str, str]]:
    for module, path in stdlib.sources():
        yield module, path.read_text(encoding="utf-8")


def _packages(*patterns: str) -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["purelib"])
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if len(text) > 1500:
                yield str(path.relative_to(root)), text


def _library() -> Iterator[tuple[str, str]]:
    return _packages("transformers/*.py", "aiohttp/*.py", "fontTools/**/*.py", "networkx/**/*.py", "jinja2/*.py")


def _prose() -> Iterator[tuple[str, str]]:
    return _packages("*.dist-info/METADATA", "*.dist-info/**/*LICENSE*", "**/*.md", "**/*.rst")


def _headers() -> Iterator[tuple[str, str]]:
    root = Path("/usr/include")
    for path in sorted([*root.glob("*.h"), *root.glob("linux/*.h"), *root.glob("c++/*/bits/*.h")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) > 1500:
            yield str(path.relative_to(root)), text


def _records() -> Iterator[tuple[str, str]]:
    """Made up: lines of JSON whose last field follows from the others."""
    for n in range(1200):
        chance, lines = random.Random(f"records {n}"), []
        names = [f"{chance.choice('abcdefgh')}{chance.randrange(30)}" for _ in range(12)]
        for row in range(40):
            price, count = chance.randrange(1, 100), chance.randrange(1, 20)
            made = {"id": 100 * n + row, "name": chance.choice(names), "n": count, "price": price}
            made |= {"sum": price * count, "large": price * count > 500}
            lines.append(json.dumps(made))
        yield f"records {n}", "\n".join(lines)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


# -- tokens


def samples(tokenizer: Any, texts: list[tuple[str, str]], seed: int, length: int, count: int) -> list[Sample]:
    """Return pieces of `length` tokens, at most six of a document, drawn by the seed."""
    chance, found = random.Random(f"pieces by {seed}"), []
    for _, text in chance.sample(texts, len(texts)):
        start = chance.randrange(max(1, len(text) - 4000))
        ids = tokenizer(text[start : start + 4000])["input_ids"]
        pieces = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
        found += [Sample(tuple(piece), 1) for piece in chance.sample(pieces, min(6, len(pieces)))]
        if len(found) >= count:
            return chance.sample(found, count)
    raise ValueError(f"{len(found)} pieces of {length} tokens in {len(texts)} documents; {count} are needed")


def split(source: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the documents for a base, for training adapters, and for validation."""
    base, train, validation = [], [], []
    for name, text in documents(source):
        digest = _digest(name)
        (base if digest[5] & 1 else validation if digest[6] < 64 else train).append((name, text))
    return base, train, validation


# -- bases


def model_of(shape: Shape, tokenizer: Any) -> Any:
    values = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 512,
        "tie_word_embeddings": shape.kind == "qwen2",
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    if shape.kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**values))
    return LlamaForCausalLM(LlamaConfig(**values))


def base_of(folder: Path, source: str, shape: Shape) -> tuple[Any, Any, dict[str, float]]:
    """Return tokenizer, model and facts of a base; it is trained where `folder` does not hold it yet."""
    if not (folder / "facts.json").is_file():
        _pretrain(folder, source, shape)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return tokenizer, model.eval(), json.loads((folder / "facts.json").read_text(encoding="utf-8"))


def _pretrain(folder: Path, source: str, shape: Shape) -> None:
    start = time.process_time()
    torch.manual_seed(42)
    texts = [text for _, text in split(source)[0]]
    tokenizer = train_tokenizer(texts[:200], shape.vocabulary)
    model = model_of(shape, tokenizer)
    ids: list[int] = []
    for text in texts:
        ids += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        if len(ids) > shape.steps * 16 * 64:
            break
    rows = torch.tensor(ids[: len(ids) // 64 * 64]).view(-1, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=shape.steps, pct_start=0.05)
    chance = torch.Generator().manual_seed(42)
    last: list[float] = []
    for _ in range(shape.steps):
        batch = rows[torch.randint(len(rows), (16,), generator=chance)]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        last.append(loss.item())
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {
        "parameters": model.num_parameters(),
        "loss": round(sum(last[-20:]) / len(last[-20:]), 3),
        "cpu_s": round(time.process_time() - start, 1),
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
