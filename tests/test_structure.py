"""The house rules, read from the source: one order of folders, no circles, no clock below the edges, a light start."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gridsweep

ROOT = Path(gridsweep.__file__).parent
ORDER = (
    "errors", "carbon", "sweep", "optima", "policy", "state", "schedule", "selection", "accounting", "loop",
    "simulation",
    "records", "grid", "spec", "energy", "executors", "runs", "train", "doctor", "serving", "render", "api", "cli",
    "__main__", "testing",
)  # fmt: skip
"""Each folder (or file of the root) may import those before it, and no other. docs/structure.md has the same list."""
PURE = ORDER[: ORDER.index("simulation") + 1]
"""Values and functions: no clock, no file, no process, no chance."""
HEAVY = {
    "torch", "transformers", "peft", "datasets", "plotly", "jinja2", "fastapi", "uvicorn", "ray", "httpx2", "optuna",
    "matplotlib", "pyarrow", "bitsandbytes",
}  # fmt: skip
TRAINING = {"torch", "transformers", "peft", "datasets", "bitsandbytes"}
PROGRAMS = {"serving.base", "serving.connections", "serving.engine", "serving.server"}
"""The small server, a program of its own as the worker is: it loads what the worker made, and no module imports it."""
WORKER_MAY = {"errors", "sweep", "records", "energy", "train"}
SERVER_MAY = {"train.device", "train.model", "train.plain_format", "train.serving_template", "train.wording"}
"""What the small server shares with the worker: how a base is loaded and a prompt is written."""
IMPURE = {"time", "random", "os", "pathlib", "sqlite3", "subprocess", "socket", "threading", "tempfile", "signal"}
LONGEST_FILE, LONGEST_FUNCTION, MOST_IN_THE_ROOT = 350, 60, 6


def modules() -> dict[str, Path]:
    """Every module by its name below the package; a folder by its own name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(tree: ast.Module, *, top_level: bool = False) -> set[str]:
    """The modules a file imports, dotted; with `top_level` only those imported when it is."""
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def ours(tree: ast.Module) -> set[str]:
    """The modules of this package a file imports, by their names below it; a folder where only the folder is named."""
    named = {name.removeprefix("gridsweep.") for name in imports(tree) if name.startswith("gridsweep.")}
    known = {name for name in named if name in MODULES}
    return {name for name in known if not any(other.startswith(f"{name}.") for other in known)}


IMPORTS = {name: ours(tree) for name, tree in TREES.items()}


def room(name: str) -> str:
    return name.partition(".")[0]


def foreign(tree: ast.Module, *, top_level: bool = False) -> set[str]:
    """The first names of what is imported."""
    return {name.partition(".")[0] for name in imports(tree, top_level=top_level)}


def test_every_module_lies_in_a_room_of_the_list():
    assert {room(name) for name in MODULES} == set(ORDER)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_room_imports_only_rooms_before_it(name):
    later = {other for other in IMPORTS[name] if ORDER.index(room(other)) > ORDER.index(room(name))}
    assert later == set()


def test_no_file_imports_itself_by_way_of_others():
    seen, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in seen:
            path.append(name)
            for other in sorted(IMPORTS[name]):
                visit(other)
            path.pop()
            seen.add(name)

    for name in MODULES:
        visit(name)


def test_the_root_holds_few_modules():
    assert len([name for name, path in MODULES.items() if path.parent == ROOT]) + 1 <= MOST_IN_THE_ROOT


def test_the_page_on_the_structure_has_the_same_list():
    page = ROOT.parents[1] / "docs" / "structure.md"
    if not page.exists():
        pytest.skip("the package is installed without its documents")
    rows = re.findall(r"^\| `(\w+?)(?:\.py|/)` \|", page.read_text(), re.M)
    assert tuple(rows) == ORDER


def test_providers_and_executors_do_not_import_one_another():
    for place in ("grid.providers", "executors"):
        alone = [name for name in MODULES if name.startswith(f"{place}.")]
        ways = {name: name.removeprefix(f"{place}.").partition(".")[0] for name in alone}
        shared = {"registry", "assigning", "handover", "border", "claims", "unmetered", "environment", "publisher"}
        shared |= {"workers"}
        for name in alone:
            others = {other for other in IMPORTS[name] if other in ways and ways[other] != ways[name]}
            if ways[name] != "registry":
                assert {ways[other] for other in others} <= shared - {"registry"}, name


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) == "train"))
def test_the_worker_uses_the_ground_floor_only(name):
    assert {room(other) for other in IMPORTS[name]} <= WORKER_MAY


def test_nobody_imports_a_program():
    for name, used in IMPORTS.items():
        if room(name) == "train":
            continue
        worker = {other for other in used if room(other) == "train"}
        assert worker <= (SERVER_MAY if name in PROGRAMS else set()), name
        assert not used & PROGRAMS or name in PROGRAMS, name


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) != "train" and n not in PROGRAMS))
def test_heavy_libraries_are_imported_where_they_are_used(name):
    assert foreign(TREES[name], top_level=True) & HEAVY == set()
    assert foreign(TREES[name]) & TRAINING == set()


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) in PURE or ".manifests" in n))
def test_the_core_does_no_io_and_knows_no_clock(name):
    used = foreign(TREES[name]) & IMPURE
    if name in ("sweep.experiments", "sweep.identity"):
        used -= {"pathlib"}  # PurePath only
    assert used == set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("open", "print", "input"), f"{name}:{node.lineno}"
            assert not called.endswith((".now", ".utcnow", ".today", ".random")) or called in (
                "world.now",
                "self.now",
            ), f"{name}:{node.lineno} calls {called}"


def test_files_are_not_too_long():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_functions_are_not_too_long():
    lengths = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_the_public_api_is_sorted_and_there():
    names = gridsweep.__all__
    assert names == sorted(names, key=lambda name: (name[0].islower(), name))
    assert set(names) == set(gridsweep._HOMES)
    for name in names:
        assert getattr(gridsweep, name).__name__ == name
    with pytest.raises(AttributeError):
        gridsweep.nonsense  # noqa: B018


def test_sweep_load_is_the_old_name_of_load():
    code = "import gridsweep, sys; assert gridsweep.Sweep.load and 'gridsweep.spec.reading' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", sorted(n for n, path in MODULES.items() if path.name == "__init__.py"))
def test_a_folder_hands_on_lazily_and_says_what_it_is_for(name):
    assert ast.get_docstring(TREES[name])
    heard = {n for n in imports(TREES[name], top_level=True) if n.startswith("gridsweep.")} - {"gridsweep.handed_on"}
    attached = {"gridsweep.sweep", "gridsweep.sweep.sweep", "gridsweep.sweep.sweep.Sweep"} if name == "spec" else set()
    programs = {n for n in heard if name == "cli"}  # click's commands exist once their modules are imported
    assert heard - attached - programs == set()
    module = __import__(f"gridsweep.{name}", fromlist=["*"])
    for handed in getattr(module, "__all__", ()):
        assert getattr(module, handed) is not None


def test_no_command_goes_through_a_shell():
    for name, tree in TREES.items():
        for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            assert not any(k.arg == "shell" for k in node.keywords), f"{name}:{node.lineno}"
            assert ast.unparse(node.func) not in ("os.system", "os.popen"), f"{name}:{node.lineno}"


def test_an_import_reaches_no_network():
    code = (
        "import sys; sys.addaudithook(lambda what, _: sys.exit(what) if what.startswith('socket.') and "
        "what.partition('.')[2] in ('connect', 'getaddrinfo', 'gethostbyname', 'sendto') else None)\n"
        "import gridsweep; [getattr(gridsweep, name) for name in gridsweep.__all__]\n"
        "import gridsweep.cli, gridsweep.grid.http.client, gridsweep.executors.local"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


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
