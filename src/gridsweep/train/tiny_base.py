"""Pre-train the bundled base model, `tiny-qwen2`, on the standard library alone.

    python -m gridsweep.train.tiny_base --to FOLDER

The model is a Qwen2 of 2 M parameters over a byte-level BPE of 2,048 tokens, both trained on half `a` of the modules
(see `stdlib`). Pre-training takes about 150 seconds on one core. The text depends on the Python version, and so do
the weights: those in the package come from Python 3.11. Their loss over the last steps, on unseen text, is
EXPECTED_LOSS nats per token.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from gridsweep.train import stdlib

VOCABULARY = 2048
LENGTH = 128  # tokens per row
ROWS = 8  # rows per step
STEPS = 600
WARMUP = 30
PEAK_LEARNING_RATE = 3e-3
SEED = 42
EXPECTED_LOSS, TOLERANCE = 3.89, 0.1

CARD = """\
---
license: psf-2.0
library_name: transformers
---
# tiny-qwen2

A Qwen2 of {parameters:,} parameters (hidden size 192, 4 layers, 6 heads of which 2 for keys and values, tied
embeddings) over a byte-level BPE of {vocabulary:,} tokens. It exists so that a sweep can be tried in minutes
on a CPU. It has seen {tokens:,} tokens of Python source and writes nothing of use.

Made by `python -m gridsweep.train.tiny_base` from the standard library of Python {python} (half of its
modules; the source is PSF-licensed), with torch {torch}. Loss over the last 20 steps: {loss:.3f} nats a
token.
"""


def train_tokenizer(texts: list[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer; its first two tokens are end-of-text and padding.

    With 258 tokens or fewer it has no merges, which makes tokens of bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((line for text in texts for line in text.splitlines(keepends=True)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])


def tiny_qwen2(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return the untrained model."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def pretrain(model: Qwen2ForCausalLM, tokens: torch.Tensor, steps: int = STEPS) -> float:
    """Train on shuffled rows of the text, each used at most once. Return the mean loss of the last 20 steps."""
    rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))]
    assert len(rows) >= steps * ROWS, "not enough text"
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    losses: list[float] = []
    for step in range(steps):
        progress = max(0.0, (step - WARMUP) / (steps - WARMUP))
        lr = PEAK_LEARNING_RATE * min((step + 1) / WARMUP, 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = rows[step * ROWS : (step + 1) * ROWS]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(
                f"step {step + 1} loss {sum(losses[-20:]) / 20:.3f} cpu {time.process_time():.0f} s",
                flush=True,
            )
    return sum(losses[-20:]) / 20


def _name_class_for_older_readers(file: Path) -> None:
    """Rename the tokenizer class: transformers before version 5 does not know the name that version 5 writes."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gridsweep.train.tiny_base", description="Pre-train tiny-qwen2.")
    parser.add_argument("--to", type=Path, required=True, help="the folder to save into")
    folder: Path = parser.parse_args().to
    torch.manual_seed(SEED)
    texts = stdlib.raw_texts("a")
    tokenizer = train_tokenizer(texts)
    model = tiny_qwen2(tokenizer)
    tokens = torch.tensor([t for ids in tokenizer(texts)["input_ids"] for t in [*ids, tokenizer.eos_token_id]])
    print(f"{model.num_parameters():,} parameters, {len(tokens):,} tokens", flush=True)
    loss = pretrain(model, tokens)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_class_for_older_readers(folder / "tokenizer_config.json")
    card = CARD.format(
        parameters=model.num_parameters(),
        vocabulary=VOCABULARY,
        tokens=STEPS * ROWS * LENGTH,
        python=platform.python_version(),
        torch=torch.__version__,
        loss=loss,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    if abs(loss - EXPECTED_LOSS) > TOLERANCE:
        print(f"the loss is {loss:.3f}, not {EXPECTED_LOSS} +- {TOLERANCE}: look at the data", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
