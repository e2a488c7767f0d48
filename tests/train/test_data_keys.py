"""The keys of `dataset` that decide what is read: columns, validation, split, train_on, skip_at_most."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from data_files import PLAIN, A, Q, Row, chat, each, folder, jsonl, parquet, raw, saved, table, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Columns, Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.identity import experiment_id
from gridsweep.train import data, data_files
from gridsweep.train.conversations import Conversation, asked

pytestmark = pytest.mark.train

RECIPE = Recipe()
PAIRS = [asked(q, a) for q, a in zip(Q, A, strict=True)]
EARLIER = chat("Hello.", "Hello, what can I do?")


def answers(conversations: list[Conversation]) -> list[str]:
    return [one.response for one in conversations]


class TestColumns:
    def test_any_columns_can_be_named(self, tmp_path: Path) -> None:
        file = jsonl(each(lambda q, a: {"Task": q, "more": "x", "gold": a, "s": "Be brief.", "h": [["e", "f"]]}))(
            tmp_path
        )
        keys = Columns("Task", "gold", context="more", system="s", history="h")
        first = data.load(Dataset(str(file), None, "train", 1, 1, keys), RECIPE).validation[0]
        assert [turn["content"] for turn in first.turns[:3]] == ["Be brief.", "e", "f"]
        assert first.turns[3]["content"].endswith("\n\nx") and first.answers == (4,)

    def test_named_columns_settle_what_is_unclear(self, tmp_path: Path) -> None:
        file = jsonl(each(lambda q, a: {"instruction": q, "output": a, "prompt": "made", "response": "other"}))(
            tmp_path
        )
        read = data.load(Dataset(str(file), columns=Columns("instruction", "output")), RECIPE)
        assert sorted(answers(read.train + read.validation)) == sorted(A)
        assert read.facts["unused_columns"] == "prompt, response"
        assert read.facts["dataset_form"] == "instruction, output"

    def test_preferences_train_on_the_chosen_conversation(self, tmp_path: Path) -> None:
        file = jsonl(each(lambda q, a: {"prompt": q, "chosen": chat(q, a), "rejected": chat(q, "no")}))(tmp_path)
        read = data.load(Dataset(str(file), columns=Columns(messages="chosen")), RECIPE)
        assert sorted(answers(read.train + read.validation)) == sorted(A)

    def test_any_column_can_be_plain_text(self, tmp_path: Path) -> None:
        file = table("d.csv", each(lambda q, a: {"body": q + a, "prompt": q, "response": a}))(tmp_path)
        read = data.load(Dataset(str(file), columns=Columns(text="body")), RECIPE)
        assert sorted(one.text for one in read.train + read.validation) == sorted(
            q + a for q, a in zip(Q, A, strict=True)
        )
        assert read.facts["trained_on"] == "all tokens of each text"

    def test_a_column_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        dataset = Dataset(str(jsonl(PLAIN)(tmp_path)), columns=Columns("prompt", "gold"))
        with pytest.raises(SpecError, match=r"no column 'gold'; its columns are prompt, response"):
            data.load(dataset, RECIPE)


class TestValidation:
    def test_a_file_of_its_own_validates_in_its_order(self, tmp_path: Path) -> None:
        train, other = jsonl(PLAIN[:30])(tmp_path), table("v.csv", PLAIN[30:])(tmp_path)
        read = data.load(Dataset(str(train), None, "train", 20, 4, validation=str(other)), RECIPE)
        assert (read.train, read.validation) == (PAIRS[:20], PAIRS[30:34])
        assert read.facts["validation_from"] == "v.csv"

    @pytest.mark.parametrize("saves", [False, True], ids=["files", "save_to_disk"])
    def test_a_folders_own_validation_samples_validate(self, tmp_path: Path, saves: bool) -> None:
        files = folder(jsonl(PLAIN[6:], "train.jsonl"), jsonl(PLAIN[:6], "validation.jsonl"))
        path = (saved(train=PLAIN[6:], validation=PLAIN[:6]) if saves else files)(tmp_path)
        read = data.load(Dataset(str(path)), RECIPE)
        assert (read.train, read.validation) == (PAIRS[6:], PAIRS[:6])
        assert read.facts["validation_from"] == "the split validation"

    def test_a_number_of_validation_samples_is_split_off_and_said(self, tmp_path: Path) -> None:
        path = folder(jsonl(PLAIN, "train.jsonl"), jsonl(PLAIN[:6], "dev.jsonl"))(tmp_path)
        read = data.load(Dataset(str(path), None, "train", 30, 10), RECIPE)
        plain = data.load(Dataset(str(jsonl(PLAIN)(tmp_path)), None, "train", 30, 10), RECIPE)
        assert (read.train, read.validation) == (plain.train, plain.validation)
        assert "the split validation is not used" in read.facts["validation_from"]

    def test_a_split_of_its_own_validates(self, tmp_path: Path) -> None:
        path = saved(train=PLAIN[5:], test=PLAIN[:5])(tmp_path)
        read = data.load(Dataset(str(path), validation="test[2:]"), RECIPE)
        assert (read.train, read.validation) == (PAIRS[5:], PAIRS[2:5])

    def test_too_few_are_told_by_their_source(self, tmp_path: Path) -> None:
        train, other = jsonl(PLAIN)(tmp_path), jsonl(PLAIN[:3], "v.jsonl")(tmp_path)
        dataset = Dataset(str(train), validation_samples=4, validation=str(other))
        with pytest.raises(SpecError, match=r"v\.jsonl \(train\) has 3 usable validation samples, 4 are asked for"):
            data.load(dataset, RECIPE)

    def test_the_training_samples_do_not_validate(self, tmp_path: Path) -> None:
        path = jsonl(PLAIN)(tmp_path)
        (tmp_path / "link.jsonl").symlink_to(path)
        for validation in ("train", str(path), str(tmp_path / "link.jsonl")):
            with pytest.raises(SpecError, match="is what is trained on"):
                data.load(Dataset(str(path), validation=validation), RECIPE)


class TestSplits:
    @pytest.mark.parametrize(
        ("split", "expected"),
        [
            ("train[:50%]", PAIRS[:20]),
            ("train[30:]", PAIRS[30:]),
            ("train[-5:]", PAIRS[35:]),
            ("train[10%:25%]", PAIRS[4:10]),
            ("train[:10]+test", PAIRS[:10] + PAIRS[:5]),
            ("test", PAIRS[:5]),
        ],
    )
    def test_a_folder_is_sliced_as_datasets_does(
        self, tmp_path: Path, split: str, expected: list[Conversation]
    ) -> None:
        path = folder(jsonl(PLAIN, "train.jsonl"), jsonl(PLAIN[:5], "test.jsonl"))(tmp_path)
        validation = jsonl([{"prompt": "another", "response": "answer"}])(tmp_path)
        assert data.load(Dataset(str(path), split=split, validation=str(validation)), RECIPE).train == expected

    def test_what_is_not_there_is_told(self, tmp_path: Path) -> None:
        file = str(jsonl(PLAIN)(tmp_path))
        path = str(folder(jsonl(PLAIN, "train.jsonl"))(tmp_path))
        disk = str(saved(train=PLAIN, dev=PLAIN[:2])(tmp_path))
        for id, split, message in (
            (file, "test", "a single file has no split 'test'"),
            (file, "train[a:b]", r"dataset\.split: 'train\[a:b\]' .* is not understood"),
            (path, "test", r"no files of the split test, only train\.jsonl"),
            (disk, "test", "has the splits train, dev, not test; set dataset.split"),
        ):
            with pytest.raises(SpecError, match=message):
                data.load(Dataset(id, split=split), RECIPE)

    def test_a_card_that_declares_its_files_is_followed(self, tmp_path: Path) -> None:
        card = (
            b"---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: odd.jsonl}\n---\n# data\n"
        )
        path = folder(jsonl(PLAIN, "odd.jsonl"), jsonl(PLAIN[:3], "train.jsonl"), raw("README.md", card))(tmp_path)
        read = data.load(Dataset(str(path)), RECIPE)
        assert sorted(answers(read.train + read.validation)) == sorted(A)


class TestAnswers:
    def test_all_answers_count_or_the_last_one(self, tmp_path: Path) -> None:
        file = str(jsonl(each(lambda q, a: {"messages": chat(q, a, *EARLIER)}))(tmp_path))
        every, last = (data.load(Dataset(file, train_on=which), RECIPE) for which in ("all_answers", "last_answer"))
        assert {one.answers for one in every.train} == {(1, 3)} and {one.answers for one in last.train} == {(3,)}
        assert [one.turns for one in every.train] == [one.turns for one in last.train]
        assert every.facts["dataset_digest"] != last.facts["dataset_digest"]
        assert (every.facts["trained_on"], last.facts["trained_on"]) == (
            "all answers",
            "the last answer of each conversation",
        )

    def test_an_answer_of_weight_0_is_context(self, tmp_path: Path) -> None:
        before = [turn("user", "Hello."), turn("assistant", "Yes?", weight=0)]
        file = str(jsonl(each(lambda q, a: {"messages": chat(q, a, *before)}))(tmp_path))
        first = data.load(Dataset(file), RECIPE).train[0]
        assert first.answers == (3,) and first.turns[1] == turn("assistant", "Yes?")


class TestSkipping:
    BLANK: list[Row] = [  # noqa: RUF012 - not changed
        {"prompt": "p", "response": None},
        {"prompt": " ", "response": "r"},
        {"prompt": "p\n<extra_id_1>Assistant\n \n<extra_id_1>User\nq", "response": "r"},
        {"messages": [turn("user", "u")]},
        {"messages": []},
        {"text": "\n"},
        {"instruction": "i", "output": "o", "history": [["q", ""]]},
    ]

    def test_causes_are_counted(self, tmp_path: Path) -> None:
        file = str(jsonl([*self.BLANK, *PLAIN])(tmp_path))
        read = data.load(Dataset(file, skip_at_most=0.2), RECIPE)
        counted = {
            "blank response": 1,
            "blank prompt": 2,
            "no answer": 2,
            "blank text": 1,
            "blank turn in the history": 1,
        }
        assert (read.skipped, read.rows) == (counted, 47)
        assert read.facts["skipped_rows"].startswith("7 of 47: 2 blank prompt, 2 no answer, 1 blank response")

    def test_the_share_is_of_the_rows_looked_at(self, tmp_path: Path) -> None:
        file = str(jsonl([*PLAIN, {"prompt": "p", "response": ""}, *PLAIN])(tmp_path))
        assert data.load(Dataset(file, None, "train", 30, 10), RECIPE).skipped == {}
        with pytest.raises(SpecError, match=r"1 of 42 rows cannot be used: 1 blank response"):
            data.load(Dataset(file, None, "train", 31, 10), RECIPE)
        assert data.load(Dataset(file, None, "train", 31, 10, skip_at_most=0.024), RECIPE).rows == 42

    def test_one_per_cent_is_allowed(self, tmp_path: Path) -> None:
        many = [{"prompt": f"{q} {n}", "response": a} for n in range(3) for q, a in zip(Q, A, strict=True)]
        rows = [*many, {"prompt": "p", "response": ""}]
        assert data.load(Dataset(str(jsonl(rows)(tmp_path))), RECIPE).skipped == {"blank response": 1}

    def test_it_changes_no_id_and_the_other_keys_do(self) -> None:
        def id_of(**keys: object) -> str:
            dataset = Dataset("org/data", **keys)  # type: ignore[arg-type]  # a test's own keys
            return experiment_id(LoraParams(16, 32, 1e-4, 0.1), 42, Model("org/model"), dataset, RECIPE)

        assert id_of() == id_of(skip_at_most=0.5) == "r16-a32-lr1e-4-d0p1-" + id_of()[-8:]
        assert id_of(validation="/here/v.csv") == id_of(validation="/there/v.csv")
        others = [{"validation": "test"}, {"validation": "./v.csv"}, {"train_on": "last_answer"}]
        columns = [{"columns": Columns("a", "b")}, {"columns": Columns("b", "a")}]
        assert len({id_of(), *(id_of(**keys) for keys in [*others, *columns])}) == 6


class TestHelpSteer2:
    """The published dataset by its shape: 20,324 and 1,038 rows, some without a response, 29 % with several turns."""

    @staticmethod
    def row(number: int) -> Row:
        many = f"u{number}\n<extra_id_1>Assistant\na{number}\n<extra_id_1>User\nv{number}"
        prompt = many if number % 100 < 29 else f"u{number}"
        response = "" if number % 400 == 7 else f"r{number}"
        scores = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), number % 5)
        return {"prompt": prompt, "response": response, **scores}

    def test_5000_rows_give_4000_and_1000(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = {"train": [self.row(n) for n in range(6000)], "validation": [self.row(n) for n in range(1038)]}
        here = folder(jsonl(rows["train"], "train.jsonl.gz"), jsonl(rows["validation"], "validation.jsonl.gz"))(
            tmp_path
        )
        asked_for: list[object] = []

        def load_dataset(
            id: str, config: None = None, *, split: str, revision: str | None, streaming: bool, cache_dir: None
        ) -> list[Row]:
            asked_for.append((id, split, revision))
            return rows[split]

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        hub, local = (
            data.load(Dataset(id, None, "train", 4000, 1000), RECIPE) for id in ("nvidia/HelpSteer2", str(here))
        )
        assert asked_for == [("nvidia/HelpSteer2", "train", None)]
        assert (len(hub.train), len(hub.validation)) == (4000, 1000)
        assert (hub.train, hub.validation) == (local.train, local.validation)
        assert hub.skipped == {"blank response": 13} and hub.rows == 5013
        assert sorted(answers(hub.train + hub.validation)) == sorted(f"r{n}" for n in range(5013) if n % 400 != 7)
        several = [one for one in hub.train + hub.validation if len(one.turns) == 4]
        assert len(several) == sum(n % 100 < 29 and n % 400 != 7 for n in range(5013))
        assert all(one.answers == (3,) and "extra_id" not in str(one.turns) for one in several)
        assert {tuple(t["role"] for t in one.turns) for one in several} == {("user", "assistant", "user", "assistant")}

    def test_its_own_validation_split_validates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = {"train": [self.row(n) for n in range(100)], "validation": [self.row(n) for n in range(100, 150)]}
        monkeypatch.setattr(
            "datasets.load_dataset", lambda id, config, *, split, revision, streaming, cache_dir: rows[split]
        )
        dataset = Dataset("nvidia/HelpSteer2", None, "train", 50, 20, validation="validation", skip_at_most=0.1)
        read = data.load(dataset, RECIPE)
        assert answers(read.train) == [f"r{n}" for n in range(51) if n != 7]
        assert answers(read.validation) == [f"r{n}" for n in range(100, 120)]


def test_an_error_of_the_hub_while_reading_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(id: str, config: None = None, *, split: str, revision: str | None, **_: object) -> object:
        def rows() -> object:
            yield PLAIN[0]
            raise RuntimeError("the connection broke\nand more")

        return rows()

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(
        SpecError, match=r"the dataset a/b \(train\): cannot be read \(the connection broke\); check the id"
    ):
        data.load(Dataset("a/b"), RECIPE)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_every_kind_of_file_gives_the_same_texts(pairs: list[tuple[str, str]]) -> None:
    rows: list[Row] = [{"prompt": prompt, "response": response} for prompt, response in pairs]
    kept = [(p, r) for p, r in pairs if p.strip() and r.strip()]
    with tempfile.TemporaryDirectory() as home:
        files = [
            jsonl(rows),
            raw("d.json.gz", json.dumps(rows).encode()),
            table("d.csv", rows),
            table("d.tsv", rows, "\t"),
            parquet("d.parquet", rows),
        ]
        for writer in files:
            path = writer(Path(home))
            found = [row.values for row in data_files.rows_of(str(path), "train", None)]
            assert [(row["prompt"], row["response"]) for row in found] == pairs
            if kept and "<extra_id" not in str(pairs):
                split = Dataset(str(path), validation=str(jsonl(PLAIN[:1], "v.jsonl")(Path(home))), skip_at_most=0.99)
                assert data.load(split, RECIPE).train == [asked(*pair) for pair in kept]


@pytest.mark.parametrize("encoding", [1, 2])
def test_a_folder_with_a_card_is_read_again_and_is_not_another_of_its_name(tmp_path: Path, encoding: int) -> None:
    """The cache of `datasets` knows such a folder by its name and card."""
    card = "---\nconfigs:\n- config_name: a\n  data_files: [{split: train, path: rows.jsonl}]\n---\n"

    def read(place: str, word: str) -> set[str]:
        folder = tmp_path / place / "data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(card)
        jsonl([{"prompt": f"q{n}", "response": f"{word}{n}"} for n in range(10)], "rows.jsonl")(folder)
        return {one.response.rstrip("0123456789") for one in data.load(Dataset(str(folder)), RECIPE, encoding).train}

    assert [read("one", "old"), read("one", "new"), read("other", "else")] == [{"old"}, {"new"}, {"else"}]
