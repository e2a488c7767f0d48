"""docs/models.md: the most used bases, by what decides in their configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any  # models of any architecture

import peft
import pytest
from bases import BASES
from peft.tuners.lora import LoraLayer
from transformers import AutoConfig

from gridsweep.errors import SpecError
from gridsweep.train.kinds import kind_of
from gridsweep.train.lean.targets import Layout, layout_of, targeted
from gridsweep.train.miniature import miniature

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ALL = ("all-linear",)
QUICK = ("Gemma 2", "gpt-oss 20b and 120b", "Granite 3", "Mistral 7B v0.1", "LFM2")


def test_the_page_says_what_the_test_holds() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (lean|plain|refused) \| ([^|]*)\|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert {name: kind for name, kind, _ in rows} == {name: kind for name, (kind, _, _) in BASES.items()}
    assert all(bool(why.strip()) == (kind != "lean") for _, kind, why in rows)
    lean = sum(kind == "lean" for kind, _, _ in BASES.values())
    assert lean >= 26 and f"{lean} of {len(BASES)} are lean" in PAGE.read_text(encoding="utf-8")


@pytest.mark.train
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BASES]
)
def test_a_base_gets_the_trainer_that_the_page_names(name: str) -> None:
    wanted, model_type, given = BASES[name]
    config = AutoConfig.for_model(model_type, **given)
    assert kind_of(config, ALL).trainer.replace("one by one", "plain") == wanted
    small = miniature(config)
    chosen, layers = targeted(small, ALL)
    assert adapted_by_peft(small, layout_of(small, ALL, chosen, layers)) == set(chosen)


def adapted_by_peft(base: Any, layout: Layout) -> set[str]:
    """The modules that PEFT adapts by the configuration that adapters are written with."""
    config = peft.LoraConfig(
        target_modules=layout.targets,
        exclude_modules=list(layout.excluded),
        layers_to_transform=layout.layers,
        r=2,
        fan_in_fan_out=layout.transposed,
    )
    adapted = peft.get_peft_model(base, config)
    found = (name for name, module in adapted.base_model.model.named_modules() if isinstance(module, LoraLayer))
    return set(found)


@pytest.mark.train
@pytest.mark.parametrize(
    ("model_type", "words"),
    [("t5", "generate no text"), ("vit", "generate no text"), ("bert", "read the tokens they are to predict")],
)
def test_what_is_no_decoder_is_refused(model_type: str, words: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    with pytest.raises(SpecError, match=words):
        kind_of(AutoConfig.for_model(model_type, **({} if model_type == "t5" else sizes)), ALL)
