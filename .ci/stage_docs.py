"""Put the pages of the documentation into build/docs, from which mkdocs builds the site.

README, CONTRIBUTING and CHANGELOG stand next to docs/, as in the repository, so that the links between them hold. The
API reference has a page for each package; mkdocstrings fills it from the docstrings of the names in ``__all__``. Each
notebook has a page with its results.

Usage: python .ci/stage_docs.py
"""

import ast
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "build" / "docs"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "notebooks", "conf", "jobs/dags")

sys.path[:0] = [str(ROOT), str(ROOT / ".ci")]
from notebook_pages import write_page  # noqa: E402

from tests.docs import surface  # noqa: E402


def stage() -> None:
    """Copy the pages, and write one for each package."""
    shutil.rmtree(TARGET, ignore_errors=True)
    (TARGET / "api").mkdir(parents=True)
    for name in PAGES:
        source, target = ROOT / name, TARGET / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    for notebook in sorted((TARGET / "notebooks").glob("*.ipynb")):
        write_page(notebook, notebook.parent)
    for path in [*TARGET.glob("*.md"), *(TARGET / "docs").rglob("*.md")]:  # the site shows a notebook by its page
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(\]\([^)\s]*notebooks/\w+)\.ipynb\)", r"\1.md)", text), encoding="utf-8")
    for name in ("README.md", "docs/troubleshooting.md"):  # parts of one page: there are no others to list next to it
        path = TARGET / name
        path.write_text("---\nhide: [navigation]\n---\n\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    for package in surface.PACKAGES:
        (TARGET / "api" / f"{package}.md").write_text(page(package), encoding="utf-8")


def page(package: str) -> str:
    """Return the page of a package: what it defines, its public modules, and links to what others define."""
    names = {name: where for name in surface.public(package) if (where := surface.origin(package, name))}
    own = [name for name, where in names.items() if where.name and owner(where) == package]
    modules = [where.module for where in names.values() if not where.name and owner(where) == package]
    others = [where for where in names.values() if owner(where) != package]
    lines = [f"::: {package}", "    options:", "      heading_level: 1", f"      members: [{', '.join(own)}]", ""]
    for module in modules:
        lines += [f"::: {module}", "    options:", "      heading_level: 2", ""]
    if others:
        lines += ["| also here | |", "| --- | --- |"]
        lines += [f"| [`{where.name or where.module}`][{where}] | {summary(where)} |" for where in others]
    return "\n".join(lines) + "\n"


def owner(where: surface.Name) -> str:
    """Return the package on whose page a name is described: the one that defines it, or only exports it."""
    home = max((name for name in surface.PACKAGES if f"{where.module}.".startswith(f"{name}.")), key=len)
    exports = {surface.origin(home, name) for name in surface.public(home)}
    return home if where in exports or where == surface.Name(home) else "sparkopt"


def summary(where: surface.Name) -> str:
    """Return the first sentence of a docstring."""
    node = surface.definition(where)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return ""
    return (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    faults = [fault for package in surface.PACKAGES for fault in surface.faults(package)]
    if faults:
        sys.exit("\n".join(dict.fromkeys(faults)))
    stage()
