"""`model.chat_template`: the file's text is kept, decides ids, and is refused with its line where it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridsweep.errors import SpecError
from gridsweep.spec import load
from gridsweep.sweep.experiments import Model
from gridsweep.sweep.sweep import Sweep

TEMPLATE = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}\n"


def loaded(folder: Path, model: str) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(
        f"model: {model}\ndataset: {{id: org/data, train_samples: 1000}}\nestimates: {{duration: 90m, power_w: 425}}\n"
    )
    return load(path)


def test_the_text_is_kept_with_the_sweep(tmp_path):
    (tmp_path / "chat.jinja").write_text("\ufeff" + TEMPLATE, encoding="utf-8")  # some editors write a byte-order mark
    sweep = loaded(tmp_path, "{id: org/model, chat_template: chat.jinja}")
    assert sweep.model == Model("org/model", chat_template=TEMPLATE)


def test_the_text_decides_ids_and_the_files_name_does_not(tmp_path):
    for name, text in (("one", TEMPLATE), ("two", TEMPLATE), ("three", TEMPLATE + " ")):
        (tmp_path / name).write_text(text)
    ids = {
        name: loaded(tmp_path, f"{{id: org/model, chat_template: ./{name}}}").experiments[0].id
        for name in ("one", "two", "three")
    }
    plain = loaded(tmp_path, "org/model").experiments[0].id
    assert ids["one"] == ids["two"] and len({*ids.values(), plain}) == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read {path}: No such file or directory; correct the path"),
        (b"\xff\xfe{", "{path} is not UTF-8; save it as UTF-8"),
        (b" \n", "{path} is empty; remove the key to use the tokenizer's template"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(tmp_path, content, told):
    path = tmp_path / "chat.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, "{id: org/model, chat_template: chat.jinja}")
    assert str(caught.value) == f"{tmp_path}/sweep.yaml:1: model.chat_template: {told.format(path=path)}"
