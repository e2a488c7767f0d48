"""The house rules, read from the source: who may import whom, no clock in the core, a light start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gridsweep

ROOT = Path(gridsweep.__file__).parent
CORE = {
    "additions", "backtest", "capacity", "carbon", "caveats", "certificate", "clusters", "deadlines", "designs",
    "differences",
    "errors", "events", "exact", "feasible", "forecast", "gardener", "grid", "halving", "holding", "identity",
    "latest_starts", "ledger", "lineup", "literature", "losses", "optima", "optima.counts", "optima.interruptible",
    "optima.layout", "optima.linear", "optima.neighbourhood", "optima.problem", "optima.streams", "outlook", "pace",
    "pausing", "placements", "planned", "plans", "policies", "policy", "possible", "postponing", "proposals",
    "ranking", "readings", "rehearse", "reports", "resting", "results", "rungs", "savings", "schedule",
    "search_space", "settlement", "solar_valley", "standings", "state", "stint", "stopping", "sweep",
    "windows", "worklist",
}  # fmt: skip
LOOP = {"loop"}
VIRTUAL = {"worlds", "executors.simulated"}  # what the core's rehearsals are driven in
EDGES = {
    "amendments", "archive", "attempt", "cluster_check", "cluster_files", "cluster_identity", "cluster_reader",
    "cluster_status", "codec", "executors.local", "executors_for", "handover", "journal", "meters", "power_limits",
    "proposers", "providers_for", "recorded", "resolver", "servable", "sources", "zones",
}  # fmt: skip
ENTRY = {
    "adapters",
    "api",
    "contracts",
    "contracts_grid",
    "doctor",
    "probes",
    "runs",
    "settle",
    "testing",
    "testing_nvml",
}
DOOR = {("sweep", "spec")}  # Sweep.load: the one door from a core value to the edge that reads files
HEAVY = {
    "pyarrow",
    "matplotlib",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "plotly",
    "jinja2",
    "fastapi",
    "uvicorn",
    "ray",
    "httpx",
    "optuna",
}
PROGRAMS = {"serving.base", "serving.engine", "serving.server"}
"""The small server, a program of its own as the worker is: it loads what the worker made, and nobody imports it."""
IMPURE = {
    "time",
    "random",
    "os",
    "pathlib",
    "sqlite3",
    "subprocess",
    "socket",
    "threading",
    "tempfile",
    "signal",
}


def modules() -> dict[str, Path]:
    """Every module by its name below the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


MODULES = modules()


def layer(name: str) -> int:
    """0 core, 1 loop, 2 edges, 3 entry."""
    if name in CORE:
        return 0
    if name in LOOP:
        return 1
    top = name.partition(".")[0]
    if name in ENTRY or top in ("cli", "render", "serving", "testing_grid", "testing_kubernetes"):
        return 3
    return 2


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules a file imports, dotted; with `top_level` only those imported when it is."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def ours(path: Path) -> set[str]:
    """The modules of this package a file imports, by their names below it."""
    names = {name.removeprefix("gridsweep.") for name in imports(path) if name.startswith("gridsweep.")}
    return {name for name in names if name in MODULES}


def test_every_module_has_its_layer():
    known = CORE | LOOP | VIRTUAL | EDGES | ENTRY
    places = (
        "cli", "cluster_api", "executors", "fetch", "manifests", "providers", "ray_cluster", "render", "serving",
        "spec", "testing_grid", "testing_kubernetes", "trace_files", "train",
    )  # fmt: skip
    assert [n for n in MODULES if n not in known and n.partition(".")[0] not in places] == []
    assert [n for n in known if n not in MODULES] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_inwards(name):
    allowed = VIRTUAL | LOOP if name in {"rehearse", "backtest", "plans", "possible", "savings"} else set()
    for other in ours(MODULES[name]):
        if (name, other) in DOOR or other in allowed:
            continue
        assert layer(other) <= layer(name), f"{name} imports {other}, which lies further out"


def test_providers_and_executors_do_not_import_one_another():
    for name, path in MODULES.items():
        place, _, own = name.partition(".")
        if place in ("providers", "executors") and own:
            others = {n for n in ours(path) if n.startswith(f"{place}.")}
            assert others == set(), name


def test_the_worker_is_a_program_of_its_own():
    allowed = {"sweep", "stint", "losses", "attempt", "codec", "errors", "meters", "power_limits"}
    for name, path in MODULES.items():
        used = ours(path)
        if name.startswith("train"):
            assert {n for n in used if not n.startswith("train")} <= allowed, name
        elif name in PROGRAMS:
            loading = {"train.device", "train.model", "train.pairs", "train.samples"}
            assert {n for n in used if n.startswith("train")} <= loading, name
        else:
            assert not any(n.startswith("train") for n in used), f"{name} imports the worker"
            assert not used & PROGRAMS, f"{name} imports a program"


def test_only_the_worker_imports_torch():
    for name, path in MODULES.items():
        if not name.startswith("train") and name not in PROGRAMS:
            heavy = {n.partition(".")[0] for n in imports(path)} & {
                "torch",
                "transformers",
                "peft",
                "datasets",
            }
            assert heavy == set(), name


@pytest.mark.parametrize("name", sorted(n for n in MODULES if not n.startswith("train") and n not in PROGRAMS))
def test_heavy_libraries_are_imported_where_they_are_used(name):
    heavy = {n.partition(".")[0] for n in imports(MODULES[name], top_level=True)} & HEAVY
    assert heavy == set()


@pytest.mark.parametrize("name", sorted(CORE | LOOP | {n for n in MODULES if n.startswith("manifests")}))
def test_the_core_does_no_io_and_knows_no_clock(name):
    path = MODULES[name]
    used = {n.partition(".")[0] for n in imports(path)} & IMPURE
    if name in ("sweep", "identity"):
        used -= {"pathlib"}  # PurePath only
    assert used == set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("open", "print", "input"), f"{name}:{node.lineno}"
            assert not called.endswith((".now", ".utcnow", ".today", ".random")) or called in (
                "world.now",
                "self.now",
            ), f"{name}:{node.lineno} calls {called}"


def test_files_are_not_too_long():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > 350} == {}


def test_the_public_api_is_sorted_and_there():
    names = gridsweep.__all__
    assert names == sorted(names, key=lambda name: (name[0].islower(), name))
    assert set(names) == set(gridsweep._HOMES)
    for name in names:
        assert getattr(gridsweep, name).__name__ == name
    with pytest.raises(AttributeError):
        gridsweep.nonsense  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from gridsweep.cli import main; sys.argv = ['gridsweep', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
    assert loaded & (HEAVY | {"numpy", "scipy", "pydantic", "yaml", "rich", "psutil"}) == set()
