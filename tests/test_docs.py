"""What the documents say is so."""

import re
from pathlib import Path

import pytest

import gridsweep
from gridsweep.errors import EXIT_CODES
from gridsweep.spec import loads

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PERSONS = re.compile(r"\b(whoever|nobody|somebody|anybody|everybody|newcomers?|who joins)\b", re.I)
"""Words for people; experiments are things."""
OWN = r"https://(?:github\.com/gridsweep/gridsweep/(?:blob|tree)|raw\.githubusercontent\.com/gridsweep/gridsweep)/main/([^)\s]+)"
"""A link into the repository that works on PyPI too."""


def test_the_readme_lists_the_exit_codes_as_they_are():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert {int(code): meaning.replace("`", "") for code, meaning in rows} == {
        code: meaning.replace("`", "") for code, meaning in EXIT_CODES.items()
    }


def test_the_readmes_spec_is_a_sweep(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    sweep = loads(text, tmp_path / "sweep.yaml")
    assert len(sweep.experiments) == 20


def test_the_readmes_python_names_what_the_package_has():
    text = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    compile(text, "README.md", "exec")
    names = re.search(r"from gridsweep import (.+)", text).group(1).split(", ")
    assert all(hasattr(gridsweep, name) for name in names)


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = document.read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
        for target in re.findall(OWN, text):
            assert (ROOT / target).exists(), f"{document.name}: {target}"
        for label in re.findall(r"\]\[(.+?)\]", text):
            assert f"\n[{label}]: " in text, f"{document.name}: {label}"


def test_links_of_the_readme_work_wherever_it_is_shown():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\((.+?)\)", text) + re.findall(r"^\[.+?\]: (\S+)$", text, re.M)
    assert len(targets) > 10
    assert all(re.fullmatch(OWN, target) for target in targets)


@pytest.mark.parametrize("document", [*PAGES, *DECISIONS], ids=lambda path: path.name)
def test_experiments_are_not_persons(document):
    assert PERSONS.findall(document.read_text()) == []


@pytest.mark.parametrize("document", [*PAGES, *DECISIONS], ids=lambda path: path.name)
def test_lines_of_prose_have_at_most_140_columns(document):
    code = False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        code ^= line.startswith("```")
        prose = not code and not re.match(r"\||    |!\[|\[[\w-]+\]: ", line)
        assert len(line) <= 140 or not prose, f"{document.name}:{number} has {len(line)} columns"


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d+[^)]+)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
    for name in listed:
        assert (folder / name).read_text().startswith(f"# {name[:3]} "), "a decision has the number of its file"
