"""The direction of imports: by package, with no circle inside one, and heavy libraries only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sparkopt"

# A package imports only packages of earlier rows, and itself. Packages in one row do not know each other.
DIRECTION = [
    ["values"],
    ["errors"],
    ["typing", "validation"],
    ["matrices"],
    ["io"],
    ["machine"],
    ["losses", "penalties", "codecs", "images", "features", "blocks"],
    ["optim", "shards"],
    ["objective"],
    ["solver"],
    ["communication"],
    ["checkpoint", "launch"],
    ["engines"],
    ["report"],
    ["training"],
    ["ml", "deep"],
    ["integrations"],
    ["jobs"],
    ["__main__"],
]
ROW = {package: row for row, packages in enumerate(DIRECTION) for package in packages}

# Who may import Spark: everything from blocks on, and one module each that puts codecs and images into a DataFrame.
BEFORE_SPARK = {
    *(
        "values",
        "errors",
        "typing",
        "validation",
        "matrices",
        "io",
        "machine",
        "losses",
        "penalties",
        "optim",
        "codecs",
        "images",
    ),
    "features",
}
ON_SPARK = {"codecs.spark", "images.spark"}

LIBRARIES = {
    "torch": ("deep", "launch", "engines.allreduce", "losses.on_torch"),
    "horovod": ("deep", "launch"),
    "cv2": ("images", "codecs"),
    "keras": ("deep",),
    "jax": ("deep", "launch", "losses.on_jax"),
    "pytensor": ("losses.on_pytensor",),
    "tensorflow": ("deep", "launch"),
}


def modules() -> dict[str, Path]:
    """Every module by its dotted name within sparkopt; a package's name is that of its __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    found.pop("__init__")
    return found


MODULES = modules()


def imports(path: Path, *, inside_functions: bool = True) -> set[str]:
    """Names of all imported modules, those under TYPE_CHECKING included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree) if inside_functions else at_import(tree.body):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run at import: not those of functions, nor those under TYPE_CHECKING."""
    found = []
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.append(node)
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            found += at_import(node.body)
    return found


def own(names: set[str]) -> set[str]:
    """The modules of sparkopt among these names."""
    return {name.removeprefix("sparkopt.") for name in names if name.startswith("sparkopt.")} & MODULES.keys()


def package(module: str) -> str:
    return module.partition(".")[0]


def is_init(module: str) -> bool:
    """Whether it is the __init__ of a package, which gathers names of the package's modules."""
    return MODULES[module].name == "__init__.py"


@pytest.mark.parametrize("module", MODULES)
def test_packages_import_only_packages_before_them(module):
    assert package(module) in ROW, f"sparkopt.{module} is in a package without a row: add it to DIRECTION"
    for other in own(imports(MODULES[module])):
        same, before = package(other) == package(module), ROW[package(other)] < ROW[package(module)]
        assert same or before, f"{module} imports {other}, which is against the direction"


def test_only_the_ground_stands_loose():
    ground = {"__init__.py", "__main__.py", "errors.py", "matrices.py", "typing.py", "validation.py", "values.py"}
    assert {path.name for path in PACKAGE.glob("*.py")} == ground


def test_tests_mirror_the_packages():
    """Each folder of tests is named after a package, or says what it tests across all of them."""
    across = {"connect", "frameworks", "keras", "docs", "notebooks", "s3"}
    for folder in (path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").exists()):
        assert folder in across or (PACKAGE / folder).is_dir(), f"tests/{folder}: sparkopt/ has no such package"


@pytest.mark.parametrize("module", [name for name in MODULES if package(name) in BEFORE_SPARK])
def test_no_spark_before_blocks(module):
    if module not in ON_SPARK:
        found = {name.partition(".")[0] for name in imports(MODULES[module], inside_functions=False)}
        assert not found & {"pyspark", "py4j"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_heavy_libraries_stay_where_they_are_needed(library):
    for module, path in MODULES.items():
        if library in {name.partition(".")[0] for name in imports(path)}:
            assert module.startswith(LIBRARIES[library]), f"{module} imports {library}"


def test_there_is_no_circle():
    """Neither at import nor by imports inside functions or under TYPE_CHECKING; an __init__ only gathers names."""
    graph = {
        name: {other for other in own(imports(path)) - {name} if not is_init(other)}
        for name, path in MODULES.items()
        if not is_init(name)
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
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
