"""The report files in a run folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gridsweep.accounting.report import Report
from gridsweep.errors import ExecutorError, word
from gridsweep.records.files import replace_file
from gridsweep.render import card, documents, html, markdown
from gridsweep.runs.folder import RunFolder


def publish(folder: Path, made: Report) -> list[Path]:
    """Write the report into the folder and a model card beside every adapter; return the paths of the reports.

    The HTML report comes first; it is left out if the extra `report` is not installed. Raise `ExecutorError` if a file
    cannot be written.
    """
    place = RunFolder(folder)
    texts = {"report.md": markdown.render(made), "report.json": documents.text(made)}
    if find_spec("plotly") and find_spec("jinja2"):
        texts = {"report.html": html.render(made), **texts}
    try:
        for name, text in texts.items():
            replace_file(place.state / name, text)
        for row in made.rows:
            home = place.store / "experiments" / row.experiment
            if (home / "adapter").is_dir():
                replace_file(home / "README.md", card.render(made, row))
    except OSError as error:
        raise ExecutorError(
            f"cannot write the report into {place.state}: {error.strerror}; fix this and run "
            f"`gridsweep report {word(folder)}` (no result is lost)"
        ) from None
    return [place.state / name for name in texts]
