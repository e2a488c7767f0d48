"""The contract of docs/json.md: what every verb prints with `--json`, and what every error."""

import json
import os
import pickle
import re
import shutil
import sqlite3
from pathlib import Path

import jsonschema
import pytest

from adapter_files import run_with_adapters
from builders import attempts
from gridsweep import errors
from gridsweep.cli import cli
from gridsweep.errors import EXIT_CODES, GridsweepError
from gridsweep.records.lease import lease
from gridsweep.render import documents
from gridsweep.render.failures import failure_of
from gridsweep.render.kinds import KINDS
from gridsweep.runs import run as runs
from old_runs import unpack

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "examples" / "published.yaml"
SPEC = """\
name: small
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 12, checkpoint_every: 4}
space: {r: [16], alpha: [32, 64], lr: [1e-4, 5e-5], dropout: [0.1]}
design: grid
devices: 2
estimates: {duration: 1h, power_w: 15}
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: 7200}}
"""
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
SOLAR = ("--trace", "solar-valley", "--from", "2025-06-01", "--to", "2025-06-02", "--every", "12h")
VERBS = [
    ("init", ["init", "new.yaml"]),
    ("check", ["check", "small.yaml"]),
    ("recommend", ["recommend", "tiny-qwen2", "stdlib", "--to", "new.yaml", "--hours", "2"]),
    ("plan", ["plan", "small.yaml", "--out", "plan.json"]),
    ("run", ["run", "small.yaml"]),
    ("status", ["status", "done"]),
    ("status", ["status", "done", "--watch"]),
    ("explain", ["explain", "e01", "done"]),
    ("logs", ["logs", "e01", "done"]),
    ("report", ["report", "done"]),
    ("stop", ["stop", "done"]),
    ("pause", ["pause", "stopped"]),
    ("resume", ["resume", "--now", "done"]),
    ("hold", ["hold", "r2-a4-lr0p003", "stopped", "--for", "2h"]),
    ("release", ["release", "r2-a4-lr0p003", "stopped"]),
    ("cancel", ["cancel", "r2-a4-lr0p003", "stopped"]),
    ("models", ["models", "done"]),
    ("best", ["best", "done"]),
    ("verify", ["verify", "done"]),
    ("repair", ["repair", "done"]),
    ("export", ["export", "e01", "done", "--to", "taken"]),
    ("serve --kubernetes", ["serve", "done", "--kubernetes", "--to", "server"]),
    ("render", ["render", PUBLISHED, "--to", "manifests"]),
    ("simulate", ["simulate", PUBLISHED, *SOLAR, "--policy", "immediate"]),
    ("forecast", ["forecast", "--trace", "solar-valley", "--at", "2024-06-10T16:00:00Z"]),
    ("zones", ["zones", "germ", "--provider", "static"]),
    ("doctor", ["doctor", "small.yaml"]),
]
ELSEWHERE = {
    "add": "tests/cli/test_asking_verbs.py",
    "collect": "tests/executors/kubernetes/test_collect.py",
    "error": "below",
    "logs --follow": "below",
    "run --detach": "below",
    "serve": "tests/serving/test_launch.py",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of three with their adapters; nobody changes it."""
    return run_with_adapters(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def place(gridsweep, made, tmp_path):
    """The folder of a test: `small.yaml`, the finished run `done`, and `stopped` with work left."""
    unpack("stopped", tmp_path)
    (tmp_path / "small.yaml").write_text(SPEC)
    return Path(shutil.copytree(made, tmp_path / "done")).parent


def strict(text):
    """One JSON document: no other text, no NaN, no key twice."""

    def no(constant):
        raise AssertionError(f"{constant} is no JSON")

    def unique(pairs):
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    return json.loads(text, parse_constant=no, object_pairs_hook=unique)


def checked(kind, told):
    """A document that is as its schema says, and keeps the rules for times and units."""
    assert next(iter(told)) == "schema_version"
    jsonschema.Draft202012Validator(documents.schema(KINDS[kind], kind)).validate(told)
    for key, value in leaves(told):
        words = key.split("_")
        assert "h" not in words and "hours" not in words and key not in ("experiment", "loss", "kwh"), key
        assert not {"s", "g", "kwh"} & set(words[:-1]) - ({"g"} if key.endswith("_g_per_kwh") else set()), key
        assert "intensity" not in words or isinstance(value, str) or words[-1] in ("s", "kwh"), key
        if isinstance(value, str) and MOMENT.match(value):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value), (key, value)
    return told


def leaves(value, key=""):
    """Every value in a document that is neither a list nor an object, with the nearest key above it."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, key)
    else:
        yield key, value


# Documents


def test_every_verb_takes_json_and_is_tried():
    assert {"--json" in {o for p in verb.params for o in p.opts} for verb in cli.commands.values()} == {True}
    assert {kind for kind, _ in VERBS} | set(ELSEWHERE) == set(KINDS)
    assert {kind.split()[0] for kind in KINDS} - {"error"} == set(cli.commands) - {"schema"}


@pytest.mark.parametrize(("kind", "arguments"), VERBS, ids=[" ".join(map(str, words[:1])) for _, words in VERBS])
def test_a_verb_prints_one_document_of_its_kind(gridsweep, place, kind, arguments):
    code, out, err = gridsweep(*arguments, "--json")
    assert code == 0, err
    checked(kind, strict(out))


def test_a_document_in_a_file_is_the_one_that_is_printed(gridsweep, place):
    _, out, _ = gridsweep("plan", "small.yaml", "--out", "plan.json", "--json")
    assert strict((place / "plan.json").read_text()) == strict(out)
    _, out, _ = gridsweep("run", "small.yaml", "--json")
    written = strict((place / "runs/small/state/report.json").read_text())
    assert written == strict(out) == strict(gridsweep("report", "runs/small", "--json")[1])
    assert written["experiments"][0]["validation_loss"] > 0


def test_a_run_in_the_background_is_named(gridsweep, place):
    code, out, _ = gridsweep("run", "small.yaml", "--detach", "--json")
    told = checked("run --detach", strict(out))
    assert code == 0 and told["folder"] == "runs/small"
    assert checked("status", strict(gridsweep("status", "runs/small", "--watch", "--json")[1]))["pid"] is None


def test_a_log_that_is_followed_is_a_document_a_line(gridsweep, place):
    for folder in attempts(place / "done"):
        (folder.path / "log.txt").write_text("one\ntwo\n")
    lines = gridsweep("logs", "e01", "done", "--follow", "--json")[1].splitlines()
    told = [checked("logs --follow", strict(line)) for line in lines]
    assert [line["line"] for line in told] == ["one", "two"] and {line["id"] for line in told} == {"e01"}
    assert strict(gridsweep("logs", "e01", "done", "--json")[1])["lines"] == ["one", "two"]


def test_an_export_keeps_the_names(gridsweep, place):
    told = strict(gridsweep("export", "e01", "done", "--to", "out", "--json")[1])
    assert told["next"] == "gridsweep serve done e01"
    figures = strict((place / "out" / "metrics.json").read_text())
    assert set(figures) >= {"schema_version", "id", "validation_loss", "energy_kwh", "emissions_g"}
    assert figures["started_at"].endswith("Z")


def test_the_schema_is_a_document_too(gridsweep):
    plain, told = strict(gridsweep("schema")[1]), strict(gridsweep("schema", "--json")[1])
    assert told == {"schema_version": 1} | plain
    jsonschema.Draft202012Validator.check_schema(told)
    for kind in KINDS:
        made = strict(gridsweep("schema", "--of", kind)[1])
        jsonschema.Draft202012Validator.check_schema(made)
        assert made["$id"].endswith(f":{made['properties']['schema_version']['const']}")


def test_a_name_in_the_table_is_that_of_a_field():
    """No name is left over of a field that is gone or was renamed."""
    classes = {}

    def visit(kind):
        if hasattr(kind, "__dataclass_fields__"):
            if kind.__name__ not in classes:
                classes[kind.__name__] = set(kind.__dataclass_fields__)
                for hint in documents._hints(kind).values():
                    visit(hint)
        else:
            for part in getattr(kind, "__args__", ()):
                visit(part)

    for kind in KINDS.values():
        visit(kind)
    for owner, names in documents.NAMES.items():
        fields = classes[owner] if owner else set().union(*classes.values())
        assert set(names) <= fields, owner


def test_docs_list_every_key_of_every_document():
    listed = sections((ROOT / "docs" / "json.md").read_text())
    expected = {}
    for kind, value in KINDS.items():
        made = documents.schema(value, kind)
        for name, shape in {kind: made, **made.get("$defs", {})}.items():
            expected[name] = {key: written(part) for key, part in shape["properties"].items()}
    assert listed == expected


def test_docs_list_every_code():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GridsweepError)]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "docs" / "json.md").read_text(), re.M)
    ours = {kind.code: kind.exit_code for kind in kinds}
    assert len(ours) == len(kinds) and set(ours.values()) <= set(EXIT_CODES)
    assert dict(rows) == {code: str(n) for code, n in ours.items()} | {
        "usage": "2", "interrupted": "130", "internal": "1",
    }  # fmt: skip


def sections(text):
    """The keys with their types below every heading that names documents or a shape."""
    found = {}
    for heading, body in re.findall(r"^###? (`.*)\n((?:(?!^#).*\n)*)", text, re.M):
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", body, re.M)
        for name in re.findall(r"`(.+?)`", heading):
            assert name not in found, name
            found[name] = {key: kind.strip("`") if kind.strip("`").isdigit() else kind for key, kind in rows}
    return found


def written(part):
    """The type of a key as the documentation writes it."""
    if "$ref" in part:
        return f"`{part['$ref'].rpartition('/')[2]}`"
    if "const" in part:
        return str(part["const"])
    if "anyOf" in part:
        return " or ".join(map(written, part["anyOf"]))
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    name = kinds[0]
    if name == "array":
        many = "prefixItems" in part
        name = f"[{', '.join(map(written, part['prefixItems']))}]" if many else f"list of {written(part['items'])}"
    elif name == "object":
        name = f"object of {written(part['additionalProperties'])}"
    elif part.get("format") == "date-time":
        name = "time"
    return " or ".join([name, *kinds[1:]]) if name != "number" else name


# Errors


def failed(gridsweep, *arguments):
    """The exit code and the document of an error; with and without --json the same code."""
    code, out, err = gridsweep(*arguments, "--json")
    told = checked("error", strict(out))
    assert err == "" and out.count("\n") == 1
    assert told["error"]["exit_code"] == code != 0
    plain, out, err = gridsweep(*arguments)
    assert (plain, out) == (code, "") and "rror: " in err
    return code, told


def damage(place):
    (place / "done/state/journal.db").write_bytes(b"not a journal" * 1000)


def newer(place):
    with sqlite3.connect(place / "done/state/journal.db") as database:
        database.execute("PRAGMA user_version = 999")


def late(place):
    (place / "small.yaml").write_text(SPEC + "finish_by: 90m\n")


def synthetic(place):
    (place / "small.yaml").write_text(SPEC + "carbon: {file: solar-valley, strict: true}\n")


def unreadable(place):
    (place / "grid.csv").write_text("timestamp,carbon_intensity\n2024-01-01T00:00:00Z,much\nnever,5\n")


def no_adapters(place):
    shutil.rmtree(place / "done/store/experiments")


def nothing(place):
    pass


def open_to_all(place):
    os.environ.pop("GRIDSWEEP_API_KEY")  # set by the test, which puts it back


@pytest.mark.parametrize(
    ("code", "exit_code", "arguments", "prepare", "where", "words"),
    [
        ("usage", 2, ["plan"], nothing, "SPEC", "Missing argument"),
        ("usage", 2, ["plan", "small.yaml", "--at", "2024-06-10T16:00"], nothing, "--at", "time zone"),
        ("usage", 2, ["chek"], nothing, None, "chek"),
        ("usage", 2, ["forecast", "small.yaml", "--zone", "DE"], nothing, None, "SPEC excludes"),
        ("usage", 2, ["schema", "--of", "nonsense"], nothing, "--of", "'nonsense'"),
        ("spec", 2, ["forecast", "--provider", "foo"], nothing, "--provider", "no provider 'foo'"),
        ("spec", 2, ["forecast", "--provider", "uk"], nothing, "--provider", "uk needs a zone"),
        ("spec", 2, ["zones", "--provider", "foo"], nothing, "--provider", "no provider 'foo'"),
        ("spec", 2, ["simulate", "small.yaml", "--policy", "planed"], nothing, "--policy", "unknown policy 'planed'"),
        ("spec", 2, ["simulate", "small.yaml", "--policy", "planned:x=1"], nothing, "--policy", "no option x"),
        ("spec", 2, ["simulate", "small.yaml", "--forecast", "x"], nothing, "--forecast", "'x' is no forecast"),
        ("access", 2, ["serve", "done", "--host", "0.0.0.0"], open_to_all, "--host", "so a key is needed"),
        ("spec", 2, ["run", "small.yaml", "--folder", "done"], nothing, None, "experiments: 3 before, 4 now"),
        ("deadline", 124, ["check", "small.yaml"], late, None, "finish_by leaves"),
        ("spec", 2, ["check", "nope.yaml"], nothing, "nope.yaml", "there is no such file"),
        ("spec", 2, ["status", "nowhere"], nothing, None, "nowhere holds no sweep"),
        ("trace", 2, ["forecast", "--trace", "grid.csv"], unreadable, "grid.csv", "2 errors in grid.csv"),
        ("error", 2, ["init", "small.yaml"], nothing, None, "small.yaml already exists"),
        ("error", 2, ["explain", "e", "done"], nothing, None, "'e' matches 3 experiments"),
        ("adapter", 2, ["export", "e01", "done", "--to", "taken"], no_adapters, None, "no finished adapter"),
        ("access", 2, ["serve", "done", "--port", "70000"], nothing, "--port", "70000 is not a port"),
        ("serving", 5, ["serve", "done", "--host", "no-such-host.invalid"], nothing, None, "cannot listen on"),
        ("signal", 8, ["run", "small.yaml"], synthetic, None, "synthetic"),
        ("journal", 7, ["status", "done"], damage, None, "journal.db"),
        ("journal", 7, ["report", "done"], newer, None, "newer"),
        ("deadline", 124, ["plan", "small.yaml"], late, None, "finish_by leaves"),
        ("deadline", 124, ["run", "small.yaml"], late, None, "finish_by leaves"),
    ],
)
def test_an_error_says_what_where_and_what_to_do(
    gridsweep, place, monkeypatch, code, exit_code, arguments, prepare, where, words
):
    monkeypatch.setenv("GRIDSWEEP_API_KEY", "a-key-of-enough-letters")
    prepare(place)
    ended, told = failed(gridsweep, *arguments)
    error = told["error"]
    assert (ended, error["code"], error["where"]) == (exit_code, code, where)
    assert words in error["what"] and error["remedy"]
    assert "; " not in error["what"]


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)
                                  and issubclass(kind, GridsweepError)])  # fmt: skip
def test_an_error_of_each_kind_has_its_code_and_its_parts(kind):
    told = checked("error", documents.document(failure_of(kind("a: it is broken; mend it"))))
    assert told["error"] == {
        "code": kind.code, "exit_code": kind.exit_code, "what": "it is broken", "where": "a", "remedy": "mend it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sweep.yaml:3: not YAML; indent; with spaces", ("sweep.yaml:3", "not YAML; indent", "with spaces")),
        ("cannot write x: no room; name another", (None, "cannot write x: no room", "name another")),
        (
            'no key (python -c "import secrets; print(1)" makes one)',
            (None, 'no key (python -c "import secrets; print(1)" makes one)', None),
        ),
        (
            "run `a; b`; or 'c; d' for the tier's and all tiers' work",
            (None, "run `a; b`", "or 'c; d' for the tier's and all tiers' work"),
        ),
        ("https://host:1 is closed", (None, "https://host:1 is closed", None)),
        ("", (None, "", None)),
    ],
)
def test_the_parts_of_a_message(text, parts):
    error = GridsweepError(text)
    assert (error.where, error.what, error.remedy) == parts and str(error) == text
    again = GridsweepError(error.what, where=error.where, remedy=error.remedy)
    assert (again.where, again.what, again.remedy) == parts and str(again) == text
    assert str(pickle.loads(pickle.dumps(again))) == text


def test_the_remedy_keeps_its_code_and_a_list_stays_with_what_happened(gridsweep, place, monkeypatch):
    monkeypatch.delenv("GRIDSWEEP_API_KEY", raising=False)
    error = failed(gridsweep, "serve", "done", "--host", "0.0.0.0")[1]["error"]
    assert '(python -c "import secrets; print(secrets.token_urlsafe())" makes one)' in error["remedy"]
    error = failed(gridsweep, "run", "small.yaml", "--folder", "done")[1]["error"]
    assert error["remedy"] == "undo these changes, or choose another folder with --folder"
    assert error["what"].count("\n") > 5 and "\n" not in error["remedy"]
    assert "\nundo these changes" in gridsweep("run", "small.yaml", "--folder", "done")[2]


def test_every_fault_of_a_spec_is_listed(gridsweep, place):
    text = SPEC.replace("devices: 2", "devices: -2").replace("lr:", "learning:") + "\ncolour: blue\n"
    (place / "small.yaml").write_text(text)
    code, told = failed(gridsweep, "check", "small.yaml")
    assert code == 2 and told["error"]["what"] == f"{len(told['errors'])} errors in small.yaml"
    by_key = {fault["key"]: fault for fault in told["errors"]}
    assert by_key["colour"]["line"] == 11 and by_key["devices"]["line"] == 7
    assert all(fault["file"] == "small.yaml" and fault["what"] for fault in told["errors"])
    _, _, err = gridsweep("check", "small.yaml")
    assert len(err.strip().splitlines()) == len(told["errors"])


def test_one_fault_is_the_error(gridsweep, place):
    (place / "small.yaml").write_text(SPEC + "polcy: immediate\n")
    _, told = failed(gridsweep, "run", "small.yaml")
    (fault,) = told["errors"]
    assert fault == {
        "file": "small.yaml", "line": 10, "key": "polcy", "what": "unknown key", "remedy": "did you mean policy?",
    }  # fmt: skip
    assert told["error"] == {
        "code": "spec", "exit_code": 2, "what": "unknown key", "where": "small.yaml:10: polcy",
        "remedy": "did you mean policy?",
    }  # fmt: skip


def test_a_folder_in_use_is_an_error(gridsweep, place):
    with lease(place / "done" / "state"):
        code, out, _ = gridsweep("run", "done", "--json")
    assert code == 6 and checked("error", strict(out))["error"]["code"] == "lease"


def test_a_run_that_ends_badly_still_reports(gridsweep, place, monkeypatch):
    (place / "small.yaml").write_text(SPEC + "rungs: none\n")
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "nan:r16-a64-lr1e-4")
    code, out, _ = gridsweep("run", "small.yaml", "--json")
    told = checked("run", strict(out))
    assert code == 3 and told["counts"]["failed"] == 1


def test_ctrl_c_is_a_document(gridsweep, place, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    for place_of, kind in ((runs, "run"), (runs, "report")):
        monkeypatch.setattr(place_of, kind, interrupted)
    code, out, _ = gridsweep("report", "done", "--json")
    assert code == 130 and checked("error", strict(out))["error"]["code"] == "interrupted"
    code, out, _ = gridsweep("run", "small.yaml", "--json")
    told = checked("error", strict(out))["error"]
    assert code == 130 and told["code"] == "interrupted" and "gridsweep run small.yaml" in told["remedy"]


def test_a_fault_of_our_own_is_a_document_with_its_traceback(gridsweep, place, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(runs, "report", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        gridsweep("report", "done", "--json")
    told = checked("error", strict(capsys.readouterr().out))["error"]
    assert (told["code"], told["what"]) == ("internal", "RuntimeError: a bug")


def test_json_after_two_dashes_is_no_option(gridsweep, place):
    code, out, err = gridsweep("check", "--", "--json")
    assert code == 2 and out == "" and "there is no such file" in err
