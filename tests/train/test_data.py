from __future__ import annotations

import json
from pathlib import Path

import pytest

from gridsweep.errors import HubError, SpecError
from gridsweep.sweep.experiments import Dataset, Recipe
from gridsweep.train import data, stdlib

pytestmark = pytest.mark.train


def write(file: Path, rows: list[object]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def numbered(count: int) -> list[object]:
    return [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(count)]


class TestFiles:
    def test_the_split_holds_the_first_samples_and_depends_on_the_seed_alone(self, tmp_path: Path) -> None:
        dataset = Dataset(write(tmp_path / "d.jsonl", numbered(12)), train_samples=6, validation_samples=3)
        one, two, other = (data.load(dataset, Recipe(seed=seed)) for seed in (1, 1, 2))
        assert one == two
        assert one.facts["dataset_digest"] != other.facts["dataset_digest"]
        both = one.train + one.validation
        assert (len(one.train), len(one.validation)) == (6, 3)
        assert sorted(pair.response for pair in both) == [f"r{n}" for n in range(9)]

    def test_the_share_validates_where_no_counts_are_given(self, tmp_path: Path) -> None:
        loaded = data.load(Dataset(write(tmp_path / "d.jsonl", numbered(10))), Recipe(validation_share=0.2))
        assert (len(loaded.train), len(loaded.validation)) == (8, 2)

    def test_the_share_is_of_train_and_validation_together(self, tmp_path: Path) -> None:
        dataset = Dataset(write(tmp_path / "d.jsonl", numbered(10)), train_samples=8)
        assert len(data.load(dataset, Recipe(validation_share=0.2)).validation) == 2

    def test_too_few_samples_are_told_with_both_counts(self, tmp_path: Path) -> None:
        dataset = Dataset(write(tmp_path / "d.jsonl", numbered(5)), train_samples=8, validation_samples=2)
        with pytest.raises(SpecError, match=r"5 usable samples .* 8 to train and 2 to validate"):
            data.load(dataset, Recipe())

    def test_rows_without_text_are_skipped_and_counted(self, tmp_path: Path) -> None:
        rows = [{"prompt": "", "response": "r"}, *numbered(4)]
        dataset = Dataset(write(tmp_path / "d.jsonl", rows), skip_at_most=0.2)
        loaded = data.load(dataset, Recipe(validation_share=0.25))
        assert loaded.facts["skipped_rows"] == "1 of 5: 1 blank prompt"
        assert (loaded.skipped, loaded.rows) == ({"blank prompt": 1}, 5)
        assert len(loaded.train) == 3

    def test_a_malformed_line_is_told_by_its_number(self, tmp_path: Path) -> None:
        file = tmp_path / "d.jsonl"
        file.write_text('{"prompt": "p", "response": "r"}\n\n{"prompt": \n')
        with pytest.raises(SpecError, match=r"d\.jsonl:3: not"):
            data.load(Dataset(str(file)), Recipe())

    def test_a_json_file_holds_a_list(self, tmp_path: Path) -> None:
        file = tmp_path / "d.json"
        file.write_text(json.dumps(numbered(5)))
        assert len(data.load(Dataset(str(file)), Recipe()).train) == 4

    def test_a_missing_file_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SpecError, match=r"the dataset \./d\.jsonl is not there \(looked in "):
            data.load(Dataset("./d.jsonl"), Recipe())

    def test_a_folder_is_read(self, tmp_path: Path) -> None:
        write(tmp_path / "train.jsonl", numbered(5))
        assert len(data.load(Dataset(str(tmp_path)), Recipe()).train) == 4

    def test_a_dataset_that_the_hub_does_not_give_is_told(self) -> None:
        with pytest.raises(HubError, match="the dataset nobody/nothing is not on this machine and the hub cannot"):
            data.load(Dataset("nobody/nothing"), Recipe())


class TestStandardLibrary:
    def test_about_5500_pairs_the_same_every_time(self) -> None:
        first = list(stdlib.mine())
        assert 5000 < len(first) < 6300
        assert stdlib.digest(first) == stdlib.digest(stdlib.functions()) == stdlib.digest(stdlib.functions())
        assert len({f.response for f in first}) == len(first)

    def test_no_module_is_in_two_parts(self) -> None:
        functions = stdlib.functions()
        train, validation = (
            {f.module for f in functions if stdlib.half(f.module) == "b" and stdlib.held_out(f.module) == held_out}
            for held_out in (False, True)
        )
        base = {module for module, _ in stdlib.sources() if stdlib.half(module) == "a"}
        assert train and validation and base
        assert not train & validation and not base & (train | validation)

    def test_nothing_of_tests_or_installed_packages(self) -> None:
        names = {part for module, _ in stdlib.sources() for part in module.split(".")}
        assert not names & {"test", "tests", "idlelib", "site-packages", "torch"}

    def test_the_docstring_asks_and_the_rest_answers(self) -> None:
        lines = ["class A:", "    @staticmethod", "    def f(x,", "          y=1):"]
        lines += ['        """Add two', "", '        numbers, slowly."""', "        return x + y", ""]
        text = "\n".join(lines)
        (function,) = stdlib.functions_of("m", text)
        assert function.prompt == (
            "Write this Python function.\n\ndef f(x,\n      y=1):\n\nAdd two\n\nnumbers, slowly."
        )
        assert function.response == "def f(x,\n      y=1):\n    return x + y"

    @pytest.mark.parametrize(
        "text",
        [
            'def f():\n    "too short"\n    return 1\n',
            'def f():\n    """a docstring of more than twenty characters"""\n',
            'def f(): "a docstring of more than twenty characters"; return 1\n',
            "def f():\n    return 1\n",
        ],
    )
    def test_what_is_no_pair(self, text: str) -> None:
        assert not list(stdlib.functions_of("m", text))

    def test_more_than_there_are_is_refused(self) -> None:
        with pytest.raises(SpecError, match=r"stdlib has \d+ validation samples, 99999 are asked for"):
            data.load(Dataset("stdlib", validation_samples=99999), Recipe())
