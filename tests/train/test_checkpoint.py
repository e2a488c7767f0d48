"""Model folders as people have them: each is loaded whole, or refused with what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Model
from gridsweep.train.checkpoint import config_of, shape_of
from gridsweep.train.model import TINY_QWEN2, load_base, resolve

pytestmark = pytest.mark.train
Folder = Callable[..., Model]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model, in a folder of the test's own."""
    target = tmp_path / "base"
    shutil.copytree(TINY_QWEN2, target)
    return target


def refused(folder: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_base(Model(str(folder)), torch.device("cpu"), torch.float32)
    assert caught.value.remedy
    return str(caught.value)


def rename(folder: Path, new: Callable[[str], str | None]) -> None:
    """Save the weights again under new names; those that get None are left out."""
    file = folder / "model.safetensors"
    kept = {new(name): tensor.contiguous() for name, tensor in load_file(file).items() if new(name)}
    save_file({name: tensor for name, tensor in kept.items() if name}, file, metadata={"format": "pt"})


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_whole_folder_is_loaded_and_tied_weights_are_not_missed(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    _, base = load_base(Model(str(folder)), torch.device("cpu"), torch.float32)
    saved = load_file(folder / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(base.get_submodule("model.layers.0.self_attn.q_proj").weight, saved.float())


def test_weights_of_a_compiled_model_are_not_drawn_at_random(folder: Path) -> None:
    rename(folder, lambda name: f"_orig_mod.{name}")
    message = refused(folder)
    assert "are missing (the first is " in message and "are unexpected (the first is _orig_mod.model." in message
    assert "save model._orig_mod, or take _orig_mod. out of the names" in message


def test_a_missing_weight_is_named(folder: Path) -> None:
    rename(folder, lambda name: None if name.endswith("1.mlp.up_proj.weight") else name)
    assert "1 are missing (the first is model.layers.1.mlp.up_proj.weight)" in refused(folder)


def test_a_weight_of_another_shape_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, file, metadata={"format": "pt"})
    message = refused(folder)
    assert "model.norm.weight" in message and "7" in message and "192" in message


def test_an_extra_weight_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), "value_head.weight": torch.ones(2)}, file, metadata={"format": "pt"})
    assert "1 are unexpected (the first is value_head.weight)" in refused(folder)


def test_buffers_of_older_versions_are_no_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    save_file({**load_file(file), **old}, file, metadata={"format": "pt"})
    load_base(Model(str(folder)), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_not_the_file(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3937472\n")
    assert f"{name} is a Git LFS pointer, not the file; run git lfs pull" in refused(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    shards = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(weights)}
    for shard in set(shards.values()):
        save_file({n: t for n, t in weights.items() if shards[n] == shard}, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    load_base(Model(str(folder)), torch.device("cpu"), torch.float32)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks 1 of 2 files of weights, the first is model-00002-of-00002.safetensors" in refused(folder)


def test_pickled_weights_alone_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no .safetensors weights (pytorch_model.bin); save it as safetensors" in refused(folder)


@pytest.mark.parametrize("model_type", ["evil", "qwen2"])
def test_code_beside_a_model_is_never_run(folder: Path, model_type: str) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    configure(folder, model_type=model_type, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    try:
        load_base(Model(str(folder)), torch.device("cpu"), torch.float32)
    except SpecError:
        assert model_type == "evil"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(("alone", "words"), [(True, "is a PEFT adapter"), (False, "holds a PEFT adapter too")])
def test_an_adapter_is_no_base(folder: Path, alone: bool, words: str) -> None:
    (folder / "adapter_config.json").write_text("{}")
    if alone:
        (folder / "config.json").unlink()
    message = refused(folder)
    assert words in message and "name its base, or merge the adapter" in message


def test_a_folder_without_a_tokenizer_is_told_so(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    assert "has no tokenizer (tokenizer.json, tokenizer.model, vocab.json or other files)" in refused(folder)


@pytest.mark.parametrize(
    ("values", "words"), [({"num_attention_heads": 0}, "its values is impossible"), ({"dtype": "float99"}, "float99")]
)
def test_an_impossible_configuration_is_told_with_its_file(folder: Path, values: dict[str, object], words: str) -> None:
    configure(folder, **values)
    model = Model(str(folder))
    with pytest.raises(SpecError) as caught:
        shape_of(model, str(folder), config_of(model, str(folder)))
    assert "its configuration (config.json)" in str(caught.value) and words in str(caught.value)


def test_a_damaged_file_of_weights_is_no_raw_error(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert refused(folder).startswith(f"the model {folder} cannot be loaded: its weights (model.safetensors): ")


def test_more_tokens_than_rows_are_refused_with_both_numbers(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save_pretrained(folder)
    assert "has 2,050 tokens, the model's embedding 2,048 rows" in refused(folder)


def test_a_placeholder_of_images_needs_no_row(folder: Path) -> None:
    """Gemma 3's text models have one token more than rows, for images."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    tokenizer.save_pretrained(folder)
    load_base(Model(str(folder)), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
        ({"quant_method": "gptq", "bits": 8}, "gptq, 8 bits"),
    ],
)
def test_a_quantized_checkpoint_is_named(folder: Path, given: dict[str, object], named: str) -> None:
    configure(folder, quantization_config=given)
    message = refused(folder)
    assert f"is quantized ({named})" in message and "name the model it was made from" in message


def test_an_unknown_model_type_is_named(folder: Path) -> None:
    configure(folder, model_type="qwen99", architectures=["Qwen99ForCausalLM"])
    message = refused(folder)
    assert "knows no model type qwen99" in message and "upgrade transformers" in message


def test_a_model_that_writes_no_text_is_refused(folder: Path) -> None:
    configure(folder, model_type="vit", architectures=["ViTModel"])
    assert "vit" in refused(folder)


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": 1}'])
def test_a_damaged_configuration_is_no_raw_error(folder: Path, damage: str) -> None:
    (folder / "config.json").write_text(damage)
    assert refused(folder).startswith(f"the model {folder} cannot be loaded: its configuration (config.json): ")


LISTED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in LISTED for damage in ("", "{", "[1]", "\xff")),
        ("tokenizer.json", '{"version": "1.0"}'),
        ("tokenizer.json", '{"version": "1.0", "model": null}'),
        ("tokenizer_config.json", '{"model_max_length": "abc"}'),  # met when a text is tokenized
        ("tokenizer_config.json", '{"eos_token": 7}'),
        ("special_tokens_map.json", '{"eos_token": 5}'),
        ("added_tokens.json", '{"a": '),
        ("chat_template.jinja", "\xff"),
    ],
)
def test_a_damaged_file_of_the_tokenizer_is_named(folder: Path, name: str, damage: str) -> None:
    (folder / name).write_text(damage, encoding="latin-1")
    assert refused(folder).startswith(f"the model {folder} cannot be loaded: its tokenizer ({name}): ")


def test_a_tokenizer_without_its_vocabulary_would_drop_all_text(folder: Path) -> None:
    """`transformers` makes one of the special tokens that the configuration names."""
    (folder / "tokenizer.json").unlink()
    file = folder / "tokenizer_config.json"
    added = {"0": {"content": "<|im_start|>", "special": True}, "1": {"content": "<|im_end|>", "special": True}}
    for more in ({}, {"added_tokens_decoder": added}):
        file.write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", **more}))
        assert refused(folder).startswith(f"the model {folder} has no vocabulary: its tokenizer.json is missing or")


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\xff"])
def test_damaged_ends_of_generation_are_named(folder: Path, damage: str) -> None:
    """Serving stops at the tokens that this file names; `transformers` passes over a damaged one."""
    (folder / "generation_config.json").write_text(damage, encoding="latin-1")
    assert refused(folder).startswith(f"the model {folder} cannot be loaded: its generation_config.json: ")


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "foo"), ("rope_parameters", {"rope_type": "zzz"})])
def test_a_word_that_transformers_does_not_know_is_named(folder: Path, key: str, value: object) -> None:
    configure(folder, **{key: value})
    word = value if isinstance(value, str) else "zzz"
    assert f"transformers knows no '{word}', which config.json names; check its files" in refused(folder)


def test_a_damaged_index_of_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{")
    assert "its weights (model.safetensors.index.json): " in refused(folder)


@pytest.mark.parametrize("typed", ["tiny-qwen", "tiny_qwen2", "smollm2-135m"])
def test_a_name_close_to_a_bundled_model_is_answered_with_it(typed: str) -> None:
    with pytest.raises(SpecError, match=r"did you mean (tiny-qwen2|smollm2-135m-instruct)\?"):
        resolve(Model(typed))
