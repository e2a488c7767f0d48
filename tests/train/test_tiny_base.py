from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gridsweep.train import stdlib, tiny_base
from gridsweep.train.model import TINY_QWEN2

pytestmark = pytest.mark.train


def test_the_bundled_base_has_learned_python_and_is_small() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_QWEN2)
    model = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=torch.float32)
    unseen = next(path for module, path in stdlib.sources() if stdlib.half(module) == "b" and module == "base64")
    tokens = torch.tensor(tokenizer(unseen.read_text(encoding="utf-8"))["input_ids"][: 8 * 128]).view(8, 128)
    with torch.no_grad():
        assert model(input_ids=tokens, labels=tokens).loss.item() < 4.6  # log(2048) = 7.6 knows nothing
    assert sum(file.stat().st_size for file in TINY_QWEN2.iterdir()) < 5_000_000


def test_the_tokenizer_gives_back_any_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_QWEN2)
    text = "def f(x):\n\treturn  'é € 日本'  # \x00"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_pre_training_learns_and_gives_the_same_every_time() -> None:
    text = "\n".join(f"def number_{n}():\n    return {n}" for n in range(2000))
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        tokenizer = tiny_base.train_tokenizer([text])
        model = tiny_base.tiny_qwen2(tokenizer)
        tokens = torch.tensor(tokenizer(text)["input_ids"])
        losses.append(tiny_base.pretrain(model, tokens, steps=8))
    assert losses[0] == losses[1] < 7.7
