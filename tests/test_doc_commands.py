"""Every command that README, the docs and the comments of the examples show is run as it is written.

The commands run in a folder with the examples, the file that `gridsweep init` writes, and finished runs of that file
and of the demo, made once with the stand-in worker and adapters written by hand. A command that cannot run here is
named in `NOT_RUN` with its reason; its verb, options and files are checked instead.
"""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapter_files import published, shapes, write_adapter
from builders import PROJECT
from gridsweep.cli.group import cli
from gridsweep.spec import load

DOCUMENTS = (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md")))
SPECS = (*sorted((PROJECT / "examples").rglob("*.yaml")), PROJECT / "src/gridsweep/spec/template.yaml")
COMMAND = r"(?:gridsweep|make) .+|python (?:benchmarks|scripts)/.+"

LIVE = "asks carbon providers over the network"
TRAINS = "measures real training, a minute a spec"
STANDS_IN = "the adapter of this folder stands in for a trained one, and fits no base: tests/train/test_merging.py"
CLUSTER = "reads a cluster in which the rendered jobs are"
ENDED = "is refused where nothing is left; tests/cli/test_asking_verbs.py asks it of a sweep on its way"
LARGE = "trains a model of 7 billion parameters"
SLOW = "trains 21 experiments one after another, for half a minute even with the stand-in"
SERVES = "serves until Ctrl-C, from adapters that hold real weights"
STORES = "writes to a store of the user's own; tests/serving/test_remote.py does so with fsspec's memory"
NOT_RUN = {
    "gridsweep cancel r16-a128-lr1e-4-d0p1-70736214": ENDED,
    "gridsweep collect examples/published.yaml": CLUSTER,
    "gridsweep collect examples/published.yaml --gate compute-gardener": CLUSTER,
    "gridsweep collect examples/published.yaml --gate suspend": CLUSTER,
    "gridsweep collect examples/published.yaml --gate suspend --store /mnt/store": CLUSTER,
    "gridsweep collect examples/published.yaml --store /mnt/store --journal /mnt/journal": CLUSTER,
    "gridsweep collect sweep.yaml": CLUSTER,
    "gridsweep export r16-a128-lr1e-4-d0p1-70736214 runs/demo --to winner --merge": STANDS_IN,
    "gridsweep hold --for 6h": ENDED,
    "gridsweep pause": ENDED,
    "gridsweep report runs/published": CLUSTER,
    "gridsweep doctor --kubernetes sweep.yaml": CLUSTER,
    "gridsweep doctor --train": TRAINS,
    "gridsweep doctor --train sweep.yaml": TRAINS,
    "gridsweep doctor --train examples/profiles/24gb.yaml": TRAINS,
    "gridsweep doctor --train examples/profiles/80gb.yaml": TRAINS,
    "gridsweep doctor --train examples/profiles/141gb.yaml": TRAINS,
    "gridsweep doctor --train examples/profiles/laptop.yaml": TRAINS,
    "gridsweep export r16-a128-lr1e-4-d0p1-70736214 runs/demo --to s3://bucket/winner": STORES,
    "gridsweep forecast --provider uk --zone GB": LIVE,
    "gridsweep run examples/published.yaml": LARGE,
    "gridsweep run examples/published-gate-demo.yaml": SLOW,
    "gridsweep run examples/published-lean.yaml": LARGE,
    "gridsweep serve runs/demo": SERVES,
    "gridsweep serve runs/sweep": SERVES,
    "gridsweep zones denmark": LIVE,
}
"""`make` and the benchmarks are not run either: they install packages, need traces, or take minutes."""
SHORTER = {"simulate": ["--every", "90d"]}
"""Options added to a verb: a start every 90 days instead of 6 hours."""


def shown(document: Path) -> list[str]:
    """The commands of a document: lines of code, then inline code that begins with a command."""
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".yaml":
        text = "\n".join(re.sub("^# ?", "", line) for line in text.splitlines() if line.startswith("#"))
        block = r"^  [^\n]*$"
    else:
        block = r"^```.*?^```$|^    [^\n]*$"
    code = "\n".join(re.findall(block, text, re.M | re.S)).replace("\\\n", " ")
    lines = [re.split(r"\s{2,}| # | \| | > ", line.strip())[0] for line in code.splitlines()]
    inline = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(block, "", text, flags=re.M | re.S))]
    return list(dict.fromkeys(command for command in (*lines, *inline) if re.fullmatch(COMMAND, command)))


def is_mention(command: str) -> bool:
    """Whether this only names a verb, such as `gridsweep run` in a sentence: its required arguments are missing."""
    verb, *rest = shlex.split(command)[1:]
    return not rest and verb in cli.commands and any(option.required for option in cli.commands[verb].params)


ALL: dict[str, Path] = {}
for path in (*DOCUMENTS, *SPECS):
    ALL |= {command: path for command in shown(path) if command not in ALL}
OF_GRIDSWEEP = [command for command in ALL if command.startswith("gridsweep")]
RUN = [command for command in OF_GRIDSWEEP if command not in NOT_RUN and not is_mention(command)]
CHECKED = [command for command in ALL if command not in RUN]


def name(command: str) -> str:
    return f"{ALL[command].name}: {command}"


def make(folder: Path, cache: Path) -> None:
    """Write the spec of `gridsweep init`, and run it and the demo side by side; the demo's is the newest run."""
    stand_in = {
        "GRIDSWEEP_WORKER": "gridsweep.testing",
        "GRIDSWEEP_STEP_SECONDS": "0.002",
        "XDG_CACHE_HOME": str(cache),
    }

    def start(command: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "gridsweep.cli", *command.split()]
        return subprocess.Popen(words, cwd=folder, env=os.environ | stand_in, stdout=subprocess.DEVNULL)

    assert start("init").wait() == 0
    runs = [start("run sweep.yaml"), start("run examples/demo.yaml --folder runs/demo")]
    assert [run.wait() for run in runs] == [0, 0]
    for home in folder.glob("runs/*/store/experiments/*"):
        rank = int(re.match(r"r(\d+)-", home.name)[1])
        shutil.rmtree(home / "adapter")
        with published(home.parents[2], home.name) as draft:
            write_adapter(draft, shapes(rank), r=rank)
    os.utime(folder / "runs/demo/state/journal.db")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which commands find what they name; made once, whatever the number of test processes."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "documents"
    base.mkdir(exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "ready").exists():
            folder = base / "folder"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(PROJECT / "examples", folder / "examples")
            shutil.copytree(PROJECT / "docs/results", folder / "docs/results")
            make(folder, base / "cache")
            (base / "ready").touch()
    return base / "folder"


@pytest.mark.parametrize("command", RUN, ids=name)
def test_a_command_that_is_shown_runs(command, prepared, gridsweep, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    words = shlex.split(command)[1:]
    if words == ["init"]:
        (tmp_path / "sweep.yaml").unlink()
    code, out, err = gridsweep(*words, *SHORTER.get(words[0], []))
    assert code == 0, f"{name(command)} ends with {code}:\n{out}\n{err}"
    assert out or err


@pytest.mark.parametrize("command", CHECKED, ids=name)
def test_a_command_that_is_not_run_names_what_exists(command, prepared, monkeypatch):
    words = shlex.split(command)
    if words[0] == "make":
        monkeypatch.chdir(PROJECT)
        assert subprocess.run(["make", "--dry-run", *words[1:]], capture_output=True).returncode == 0
        assert all((PROJECT / value).exists() for value in re.findall(r"SPEC=(\S+)", command))
    elif words[0] == "python":
        text = (PROJECT / words[1]).read_text(encoding="utf-8")
        assert all(option in text for option in re.findall(r"--[\w-]+", command))
    elif command in NOT_RUN:
        monkeypatch.chdir(prepared)
        context = cli.commands[words[1]].make_context(words[1], words[2:])
        for value in context.params.values():
            for path in value if isinstance(value, tuple) else (value,):
                if isinstance(path, Path) and path.suffix == ".yaml":
                    load(path)
    else:
        assert is_mention(command)


def test_every_command_is_run_or_has_a_reason():
    stale = set(NOT_RUN) - set(ALL)
    assert not stale, f"no document shows {stale}; remove them from NOT_RUN"
    assert all(NOT_RUN.values())
    assert len(RUN) > 2 * len(NOT_RUN), f"{len(RUN)} commands are run, {len(NOT_RUN)} are not"
