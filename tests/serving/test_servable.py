"""What may be served, read from files alone; everything else is refused with a reason."""

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter_files import header_of, shapes, write_adapter, write_tensors
from gridsweep.serving.servable import RANKS, AdapterError, Servable, servable, together
from gridsweep.sweep.experiments import Model

BASE = Model("tiny-qwen2")
WEIGHTS = "adapter_model.safetensors"
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def refused(folder: Path, *words: str, base: Model = BASE, name: str = "a") -> None:
    with pytest.raises(AdapterError) as caught:
        servable(name, folder, base)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert all(word in message for word in words), message
    assert message.isprintable()


def test_a_plain_lora_is_servable(tmp_path):
    folder = write_adapter(tmp_path / "a")
    (folder / "manifest.json").write_text("{}")
    assert servable("e00", folder, BASE) == Servable("e00", folder, BASE, 4)


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path):
    folder = write_adapter(tmp_path / "a", base_model_name_or_path="Qwen/Qwen2.5-Coder-7B")
    refused(folder, "Qwen/Qwen2.5-Coder-7B", "tiny-qwen2")
    refused(write_adapter(tmp_path / "b", revision="abc"), "abc", "None")
    refused(write_adapter(tmp_path / "c"), "None", "v2", base=Model("tiny-qwen2", "v2"))
    assert servable("a", write_adapter(tmp_path / "d", revision="v2"), Model("tiny-qwen2", "v2")).base.revision == "v2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules_to_save": ["lm_head"]}, ["modules_to_save", "lm_head"]),
        ({"use_dora": True}, ["use_dora"]),
        ({"bias": "all"}, ["bias"]),
        ({"rank_pattern": {"q_proj": 8}}, ["rank_pattern"]),
        ({"layer_replication": [[0, 4]]}, ["layer_replication"]),
        ({"auto_mapping": {"parent_library": "os"}}, ["auto_mapping"]),
        ({"an_option_of_next_year": 1}, ["an_option_of_next_year"]),
        ({"init_lora_weights": "pissa"}, ["pissa"]),
        ({"peft_type": "IA3"}, ["IA3"]),
        ({"task_type": "SEQ_CLS"}, ["SEQ_CLS"]),
        ({"r": 0}, ["rank is 0"]),
        ({"r": 513}, ["513", "512"]),
        ({"r": True}, ["True"]),
        ({"r": "4"}, ["'4'"]),
        ({"r": 8}, ["[4, 6]", "not of rank 8"]),
        ({"target_modules": "all-linear"}, ["all-linear"]),
        ({"target_modules": []}, ["target_modules"]),
        ({"target_modules": ["q_proj", "lm_head"]}, ["lm_head"]),
        ({"target_modules": ["q_proj"]}, ["up_proj"]),
        ({"target_modules": ["q_proj", "up_proj", "k_proj"]}, ["no tensors for", "k_proj"]),
        ({"base_model_name_or_path": "\x1b[2Jevil\n"}, ["\\x1b[2Jevil\\n"]),
    ],
)
def test_what_servers_do_not_support_is_refused(tmp_path, changes, words):
    refused(write_adapter(tmp_path / "a", **changes), *words)


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "x.PKL", "last.ckpt"])
def test_a_pickle_in_the_folder_is_refused_unread(tmp_path, name):
    folder = write_adapter(tmp_path / "a")
    (folder / name).write_bytes(b"anything")
    refused(folder, name, "pickle")


def test_a_pickle_under_the_right_name_is_refused_unread(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder = write_adapter(tmp_path / "a")
    (folder / WEIGHTS).write_bytes(pickle.dumps(Evil()))
    refused(folder, "not a safetensors file")
    assert not (tmp_path / "ran").exists()


def test_links_folders_and_strangers_are_refused(tmp_path):
    real = write_adapter(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    refused(tmp_path / "link", "not a folder")
    refused(tmp_path / "nothing", "not a folder")
    for name, make in {
        "README.md": lambda path: path.symlink_to("/etc/passwd"),
        "inner": Path.mkdir,
        "code.py": Path.touch,
        "\x1b[31m.txt": Path.touch,
        "manifest.json": os.mkfifo,
    }.items():
        folder = write_adapter(tmp_path / ascii(name).strip("'"))
        make(folder / name)
        refused(folder, ascii(name).strip("'"))
    empty = write_adapter(tmp_path / "without")
    (empty / WEIGHTS).unlink()
    refused(empty, WEIGHTS, "missing")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b'{"r": 4, "r": 8}', b"[" * 100_000])
def test_a_config_that_is_none_is_refused(tmp_path, text):
    folder = write_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(text)
    refused(folder, "adapter_config.json is not a JSON object")


def test_a_huge_config_is_not_read(tmp_path):
    folder = write_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(b" " * (1 << 20) + b"{}")
    refused(folder, "megabyte")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x", "a\n", "x" * 101, "a=b", "a,b"])
def test_names_that_would_mean_something_else_are_refused(tmp_path, name):
    refused(write_adapter(tmp_path / "a"), "name", name=name)


def test_a_header_that_lies_is_refused(tmp_path):
    folder, (header, size) = write_adapter(tmp_path / "a"), header_of(shapes())
    entry = header[FIRST]

    def change(**changes):
        return {**header, FIRST: {**entry, **changes}}

    lies = [
        (change(data_offsets=[0, 92]), size, "a size unlike its shape"),
        (change(shape=[4, 7]), size, "a size unlike its shape"),
        (change(shape=[]), size, "a size unlike its shape"),
        (change(shape=[-4, -6]), size, "invalid entry"),
        (change(shape=[4, True]), size, "invalid entry"),
        (change(dtype="I64"), size, "invalid entry"),
        (change(dtype="F16"), size, "a size unlike its shape"),
        (change(data_offsets=[-96, 0]), size, "invalid entry"),
        (change(data_offsets=[size, size + 96]), size, "gaps"),
        (change(data_offsets=[96, 192]), size, "overlap"),
        (change(data_offsets=[0]), size, "invalid entry"),
        (change(more=1), size, "invalid entry"),
        ({**header, FIRST: "x"}, size, "invalid entry"),
        (header, size - 4, "end at byte"),
        (header, size + 4, "end at byte"),
        (b"[1]", 8, "not a JSON object"),
        (b'{"a": 1, "a": 2}', 8, "not a JSON object"),
    ]
    for lie, length, words in lies:
        write_tensors(folder / WEIGHTS, lie, length)
        refused(folder, words)
    (folder / WEIGHTS).write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    refused(folder, "not a safetensors file")
    (folder / WEIGHTS).write_bytes(b"abc")
    refused(folder, "not a safetensors file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(FIRST), "only one of its two"),
        (lambda t: t.update({"base_model.model.lm_head.weight": [2, 4]}), "lm_head"),
        (lambda t: t.update({FIRST.replace("layers.0", "layers/../0"): [4, 6]}), "does not belong to a LoRA"),
        (lambda t: t.update({FIRST.replace("q_proj", "v_proj"): [4, 6]}), "does not belong to a LoRA"),
        (lambda t: t.update({FIRST.replace("lora_A", "lora_magnitude_vector"): [4, 6]}), "does not belong to a LoRA"),
        (lambda t: t.update({FIRST: [8, 6]}), "not of rank 4"),
        (lambda t: t.update({FIRST: [4, 6, 1]}), "not of rank 4"),
        (lambda t: t.clear(), "no tensors for"),
    ],
)
def test_tensors_that_are_no_lora_are_refused(tmp_path, change, words):
    tensors = shapes()
    change(tensors)
    refused(write_adapter(tmp_path / "a", tensors), words)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_servable_and_never_anything_else(tmp_path_factory, data):
    folder = write_adapter(tmp_path_factory.mktemp("a"))
    name = data.draw(st.sampled_from([WEIGHTS, "adapter_config.json"]))
    text = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        text = text or bytearray(b"x")
    (folder / name).write_bytes(text)
    try:
        servable("a", folder, BASE)
    except AdapterError as error:
        assert str(error).isprintable()


def test_the_smallest_allowed_rank_that_fits_all(tmp_path):
    def ranked(*ranks):
        return [Servable(f"a{i}", tmp_path, BASE, rank) for i, rank in enumerate(ranks)]

    assert [together(ranked(r)) for r in (1, 2, 8, 9, 24, 32, 64, 257, 512)] == [1, 8, 8, 16, 32, 32, 64, 320, 512]
    assert together(ranked(4, 33, 16)) == 64
    assert list(RANKS) == sorted(RANKS)


def test_adapters_that_do_not_go_together_are_refused(tmp_path):
    one, other = Servable("a", tmp_path, BASE, 4), Servable("b", tmp_path, Model("tiny-qwen2", "v2"), 4)
    with pytest.raises(AdapterError, match="a belongs to 'tiny-qwen2' and b to 'tiny-qwen2' at revision 'v2'"):
        together([one, other])
    with pytest.raises(AdapterError, match="a is named twice"):
        together([one, one])
    with pytest.raises(AdapterError, match="at least one"):
        together([])


def test_what_peft_writes_of_its_defaults_is_known(tmp_path):
    """Options beyond ours that PEFT 0.21 writes with every plain LoRA."""
    more = json.loads(
        '{"alpha_pattern": {}, "loftq_config": {}, "megatron_core": "megatron.core", "qalora_group_size": 16, '
        '"fan_in_fan_out": false, "lora_bias": false, "exclude_modules": null, "peft_version": "0.21.2"}'
    )
    assert servable("a", write_adapter(tmp_path / "a", **more), BASE).rank == 4


def test_the_workers_own_kinds_of_lora_are_servable(tmp_path):
    """rsLoRA, and adapters in the upper layers only: the weights say by their names where they belong."""
    assert servable("a", write_adapter(tmp_path / "a", use_rslora=True, layers_to_transform=[1]), BASE).rank == 4
