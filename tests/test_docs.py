"""What the documents say is so."""

import re
from pathlib import Path

from gridsweep.errors import EXIT_CODES
from gridsweep.spec import loads

ROOT = Path(__file__).parent.parent


def test_the_readme_lists_the_exit_codes_as_they_are():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert {int(code): meaning.replace("`", "") for code, meaning in rows} == {
        code: meaning.replace("`", "") for code, meaning in EXIT_CODES.items()
    }


def test_the_readmes_spec_is_a_sweep(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    (tmp_path / "california.csv").write_text("")
    sweep = loads(text, tmp_path / "sweep.yaml")
    assert len(sweep.experiments) == 20


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d+[^)]+)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
