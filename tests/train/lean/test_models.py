"""Models as people have them: the trainer each architecture gets, and that it trains as plain PEFT does."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import LEAN, PLAIN
from lean_alone import Alone, KeyedDropout
from lean_builders import MODEL, RECIPE, SAMPLES, nothing, part
from peft import LoraConfig, PeftModel, get_peft_model
from plain_peft import Training
from transformers import AutoConfig

from gridsweep.train.architecture import empty
from gridsweep.train.kinds import Kind, engine_for, kind_of
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.miniature import drawn

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*base_model_name_or_path. was renamed:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out:UserWarning"),
]
STEPS = 10
TWO = [part("a", 4, 8, 2e-3, 0.1, 1), part("b", 2, 4, 1e-3, 0.0, 2)]


def base_of(config: Any) -> Any:
    """A frozen random model of a configuration, always the same."""
    torch.manual_seed(0)
    base = empty(deepcopy(config))  # a group writes into the configuration
    with torch.no_grad():
        drawn(base)
    base.config.use_cache = False
    return base.requires_grad_(False).eval()


class AsConfigured(Alone):
    """Plain PEFT by an adapter's own configuration; only its dropout is in training mode, not that of the base."""

    def __init__(self, base: Any, folder: Path, *others: Any):
        self.folder = folder
        super().__init__(base, *others)
        drops = [module for module in self.lora.modules() if isinstance(module, KeyedDropout)]
        self.lora.train = lambda mode=True: ([drop.train(mode) for drop in drops], self.lora)[1]


def configured(base: Any, folder: Path, seed: int) -> Any:
    config = LoraConfig.from_pretrained(folder)
    config.inference_mode = False
    torch.manual_seed(seed)
    return get_peft_model(base, config)


def together_and_alone(config: Any, targets: tuple[str, ...], kind: Kind, folder: Path, monkeypatch: Any) -> None:
    """Ten steps of two members, against each by plain PEFT alone; then their losses, and the files read by PEFT."""
    recipe = replace(RECIPE, target_modules=targets)
    base = base_of(config)
    used, engine = engine_for(kind, base, targets)
    assert used == kind
    group = Group(base, TWO, recipe, STEPS, SAMPLES, MODEL, engine=engine, plan=Plan(2, 48))
    alone: dict[str, Training] = {}
    for p in TWO:
        own = folder / p.experiment
        own.mkdir()
        group.save_adapter(p.experiment, own)
        monkeypatch.setattr("lean_alone.add_lora", lambda base, *_, own=own, p=p: configured(base, own, p.seed))
        alone[p.experiment] = AsConfigured(base_of(config), own, p, recipe, STEPS, SAMPLES)
    for step in range(STEPS):
        losses = group.step(step, nothing)
        plain = {name: one.step(step, nothing) for name, one in alone.items()}
        assert {name: losses[name] - plain[name] for name in plain} == pytest.approx(dict.fromkeys(plain, 0), abs=1e-5)
    scores = group.evaluate(SAMPLES, nothing)
    for name, one in alone.items():
        assert scores[name].mean == pytest.approx(one.evaluate(SAMPLES, STEPS, nothing), abs=1e-5)
        group.save_adapter(name, folder / name)
        read = PeftModel.from_pretrained(base_of(config), folder / name).eval()
        ids = torch.tensor([SAMPLES[3].ids])
        assert torch.allclose(read(input_ids=ids).logits, one.lora.eval()(input_ids=ids).logits, atol=1e-3)


@pytest.mark.parametrize("name", LEAN)
def test_a_lean_architecture_trains_as_plain_peft(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_type, given, targets = LEAN[name]
    config = AutoConfig.for_model(model_type, **given)
    kind = kind_of(config, targets)
    assert kind == Kind("lean")
    together_and_alone(config, targets, kind, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", PLAIN)
def test_any_other_architecture_is_trained_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_type, given, targets = PLAIN[name]
    config = AutoConfig.for_model(model_type, **given)
    kind = kind_of(config, targets)
    assert kind.trainer == "plain" and kind.reason
    together_and_alone(config, targets, kind, tmp_path, monkeypatch)
