"""The floors: a module imports only lower floors, or modules listed above it on its own floor."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sparkopt"

# From the ground up; within a floor, from the top of the list down. "pkg.*" is every module below pkg that has no
# line of its own, and such modules may import each other (a circle among them is found by the last test).
FLOORS = [
    ["errors", "validation", "typing", "image_header", "buffers", "notebook"],
    ["losses.*", "penalties.*", "optim.*", "codecs.*", "images.*"],
    [
        "blocks.block",
        "query",
        "passes",
        "objective",
        "folds",
        "work",
        "storage",
        "promotion",
        "memories",
        "compression",
        "progress",
        "compatible",
        "problem",
        "solve",
        "callbacks",
        "fingerprint",
        "checkpoint_format",
        "checkpoint",
    ],
    [
        "blocks.moments",
        "blocks.columns",
        "blocks.files",
        "blocks.tasks",
        "blocks.backend",
        "blocks.classic",
        "blocks.connect",
        "blocks.store",
        "cluster.session",
        "cluster.devices",
        "cluster.wire",
        "cluster.threads",
        "cluster.job",
        "cluster.sums",
        "cluster.reduction",
        "cluster.trial",
        "cluster.launch.*",
        "cluster.aggregate",
        "cluster.crew",
        "cluster.resident",
        "cluster.relay",
        "cluster.ranks",
        "cluster.local",
        "cluster.allreduce",
        "cluster.choose",
        "cluster.plan",
        "images.arrow",
        "images.reader",
        "images.spark",
        "images.statistics",
        "codecs.columns",
    ],
    ["report.*", "compare", "saved", "watch", "identity", "trainer", "continuation"],
    ["ml.*", "deep.*"],
    ["pyfunc", "tracking"],
    [
        "jobs.pipeline",
        "jobs.flags",
        "jobs.logs",
        "jobs.places",
        "jobs.manifest",
        "jobs.frame",
        "jobs.sources",
        "jobs.models",
        "jobs.charts",
        "jobs.metrics",
        "jobs.train",
        "jobs.train_deep",
        "jobs.preprocess_images",
        "jobs.score",
        "jobs.evaluate",
        "jobs.cli",
    ],
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    found.pop("__init__")
    return found


def place(module: str) -> tuple[int, int]:
    """Floor, and position on it."""
    for exact in (True, False):
        for floor, names in enumerate(FLOORS):
            for position, name in enumerate(names):
                family = name.endswith(".*") and (module + ".").startswith(name[:-1])
                if (exact and name == module) or (not exact and family):
                    return floor, position
    raise AssertionError(f"sparkopt.{module} is on no floor: give it a line in FLOORS")


def imports(path: Path, *, lazy: bool = False) -> set[str]:
    """Modules imported when the module is, and with ``lazy`` also those imported inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else at_import(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run at import; blocks under TYPE_CHECKING do not."""
    found = []
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.append(node)
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            found += at_import(node.body)
    return found


def own(names: set[str], known: dict[str, Path]) -> set[str]:
    inside = {name.removeprefix("sparkopt.") for name in names if name.startswith("sparkopt.")}
    return inside & known.keys()


MODULES = modules()


def barrels(module: str) -> bool:
    """A package's __init__ gathers its own modules and carries no code."""
    return MODULES[module].name == "__init__.py"


@pytest.mark.parametrize("module", [name for name in MODULES if not barrels(name)])
def test_imports_point_downwards(module):
    floor, position = place(module)
    for other in own(imports(MODULES[module]), MODULES):
        if other == module or (barrels(other) and (module + ".").startswith(other + ".")):
            continue
        assert barrels(other) or place(other) <= (floor, position), f"{module} imports {other}, which is above it"


@pytest.mark.parametrize("module", [name for name in MODULES if not barrels(name) and place(name)[0] == 1])
def test_families_of_the_first_floor_keep_apart(module):
    family = module.split(".")[0]
    for other in own(imports(MODULES[module]), MODULES):
        if barrels(other) or place(other)[0] == 1:
            assert other.split(".")[0] in (family, "losses", "penalties"), f"{module} imports {other}"


def test_no_spark_below_the_third_floor():
    for module, path in MODULES.items():
        if not barrels(module) and place(module)[0] < 3:
            assert not {name.split(".")[0] for name in imports(path)} & {"pyspark", "py4j"}, module


def test_heavy_libraries_stay_in_their_rooms():
    rooms = {
        "torch": ("deep", "cluster.launch", "cluster.devices"),
        "horovod": ("deep", "cluster.launch"),
        "cv2": ("images", "codecs"),
    }
    for module, path in MODULES.items():
        for library in {name.split(".")[0] for name in imports(path, lazy=True)} & rooms.keys():
            assert module.startswith(rooms[library]), f"{module} imports {library}"


def test_ml_and_deep_keep_apart():
    for module in (name for name in MODULES if name.startswith(("ml", "deep"))):
        families = {other.split(".")[0] for other in own(imports(MODULES[module], lazy=True), MODULES)}
        assert not families & ({"ml", "deep"} - {module.split(".")[0]}), module


def test_there_is_no_circle():
    graph = {name: own(imports(path), MODULES) - {name} for name, path in MODULES.items() if not barrels(name)}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_import_is_light():
    """``import sparkopt`` loads none of the heavy libraries, and not even Spark."""
    code = (
        "import sys, sparkopt; print(*sys.modules.keys() & {'torch', 'horovod', 'cv2', 'pyspark', 'pandas', 'numpy'})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not found.strip()
