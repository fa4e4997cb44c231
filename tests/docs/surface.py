"""The public surface of sparkopt, read from its source: names, docstrings, and the types in signatures.

Public is what a package's ``__init__`` lists in ``__all__``. Nothing is imported, so that `make docs` can use it too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2] / "sparkopt"

PACKAGES = (
    "sparkopt",
    "sparkopt.errors",
    "sparkopt.typing",
    "sparkopt.matrices",
    "sparkopt.validation",
    *(
        f"sparkopt.{name}"
        for name in ("io", "machine", "losses", "penalties", "optim", "codecs", "images", "features")
    ),
    "sparkopt.blocks",
    "sparkopt.shards",
    *(f"sparkopt.{name}" for name in ("objective", "solver", "communication", "checkpoint", "launch")),
    *(f"sparkopt.{name}" for name in ("engines", "report", "training", "ml", "deep", "integrations", "jobs")),
)
"""In the order of the design: a package imports only packages before it."""

CALLS = ("__init__", "__new__", "__call__")
"""Methods without a public name whose signature is public."""

Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign | ast.Module


@dataclass(frozen=True)
class Name:
    """Where a name is defined; ``name`` is empty for a module."""

    module: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".rstrip(".")


@cache
def source(module: str) -> Path | None:
    """File of a module of sparkopt, or None where there is no such module."""
    path = ROOT.joinpath(*module.split(".")[1:])
    for found in (path / "__init__.py", path.with_suffix(".py")):
        if found.exists():
            return found
    return None


@cache
def tree(module: str) -> ast.Module:
    path = source(module)
    assert path, module
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those under ``if`` and ``try`` included."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from statements([*node.body, *node.orelse, *getattr(node, "finalbody", ())])


@cache
def bindings(module: str) -> dict[str, Definition | Name]:
    """What each top-level name of a module is: its definition, or where it is imported from."""
    found: dict[str, Definition | Name] = {}
    for node in statements(tree(module).body):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names = public(node.module) if alias.name == "*" else [alias.name]
                found.update({alias.asname or name: Name(node.module, name) for name in names})
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = Name(alias.name)
    return found


def public(package: str) -> list[str]:
    """Names of ``__all__``; ``*_TABLE`` in it stands for the table's keys, ``*other.__all__`` for another's names."""
    node = bindings(package).get("__all__")
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        raise LookupError(f"{package} has no __all__")
    return strings(package, node.value)


def strings(module: str, node: ast.expr | None) -> list[str]:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [text for item in node.elts for text in strings(module, item)]
    if isinstance(node, ast.Dict):
        return [text for key in node.keys for text in strings(module, key)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Starred):
        return strings(module, node.value)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("sorted", "list", "tuple"):
        return strings(module, node.args[0])
    if isinstance(node, ast.Name):
        value = bindings(module).get(node.id)
        if isinstance(value, (ast.Assign, ast.AnnAssign)):
            return strings(module, value.value)
    if isinstance(node, ast.Attribute) and node.attr == "__all__":
        return [text for other in types(module, node.value) for text in public(other.module)]
    raise LookupError(f"{module}: __all__ cannot be read without running it")


def origin(module: str, name: str) -> Name | None:
    """Where a name that a module uses is defined; None if it is not one of sparkopt."""
    if module.partition(".")[0] != "sparkopt":
        return None
    if source(module):
        found = bindings(module).get(name)
        if isinstance(found, Name) and found != Name(module, name):  # a package imports its own module by that name
            if found.name:
                return origin(found.module, found.name)
            return Name(found.module) if source(found.module) else None
        if found is not None and not isinstance(found, Name):
            return Name(module, name)
    return Name(f"{module}.{name}") if source(f"{module}.{name}") else None


def definition(where: Name) -> Definition:
    if not where.name:
        return tree(where.module)
    found = bindings(where.module)[where.name]
    assert not isinstance(found, Name)
    return found


def bases(where: Name) -> Iterator[tuple[Name, ast.ClassDef]]:
    """A class and its bases within sparkopt, nearest first."""
    node = definition(where)
    if isinstance(node, ast.ClassDef):
        yield where, node
        for base in node.bases:
            for other in types(where.module, base.value if isinstance(base, ast.Subscript) else base):
                yield from bases(other)


def types(module: str, annotation: ast.expr | None) -> Iterator[Name]:
    """Names of sparkopt in an annotation."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from types(module, ast.parse(annotation.value, mode="eval").body)
    elif isinstance(annotation, ast.Name):
        if found := origin(module, annotation.id):
            yield found
    elif isinstance(annotation, ast.Attribute):
        for outer in types(module, annotation.value):
            if not outer.name and (found := origin(outer.module, annotation.attr)):
                yield found
    elif isinstance(annotation, ast.Subscript):
        yield from types(module, annotation.value)
        if ast.unparse(annotation.value) != "Literal":
            yield from types(module, annotation.slice)
    elif isinstance(annotation, ast.BinOp):
        yield from types(module, annotation.left)
        yield from types(module, annotation.right)
    elif isinstance(annotation, (ast.List, ast.Tuple)):
        for item in annotation.elts:
            yield from types(module, item)


def annotations(node: ast.FunctionDef) -> Iterator[ast.expr | None]:
    given = node.args
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if argument is not None:
            yield argument.annotation
    yield node.returns


def signature(where: Name) -> Iterator[tuple[str, Name]]:
    """What a public name shows: each part's name, with each type of sparkopt in its signature."""
    node = definition(where)
    if isinstance(node, ast.FunctionDef):
        for annotation in annotations(node):
            for found in types(where.module, annotation):
                yield node.name, found
    for owner, body in bases(where):
        for part in body.body:
            if isinstance(part, ast.FunctionDef) and (not part.name.startswith("_") or part.name in CALLS):
                for annotation in annotations(part):
                    for found in types(owner.module, annotation):
                        yield f"{owner.name}.{part.name}", found
            elif isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
                for found in types(owner.module, part.annotation):
                    yield f"{owner.name}.{ast.unparse(part.target)}", found


def is_variable(where: Name) -> bool:
    """Whether it is a TypeVar or the like, which nobody needs to import."""
    node = definition(where)
    call = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func) in ("TypeVar", "ParamSpec")


def documented(where: Name) -> bool:
    """Whether a definition has a docstring; that of a constant or an alias is the string after it."""
    node = definition(where)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        body = list(statements(tree(where.module).body))
        after = body[body.index(node) + 1 : body.index(node) + 2]
        return bool(after) and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant)
    return bool(ast.get_docstring(node))


def undocumented_methods(where: Name) -> Iterator[str]:
    """Public methods and properties with a docstring neither here nor in a base, which has the contract."""
    family = list(bases(where))
    described = {
        part.name
        for _, body in family
        for part in body.body
        if isinstance(part, ast.FunctionDef) and (ast.get_docstring(part) or listed(part.name, body))
    }
    for part in family[0][1].body if family else ():
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and part.name not in described:
            yield f"{where}.{part.name}"


def listed(attribute: str, body: ast.ClassDef) -> bool:
    """Whether a class's docstring describes an attribute, in a line such as ``rows, columns : int``."""
    return bool(re.search(rf"^(\w+, )*{attribute}(, \w+)* :", ast.get_docstring(body) or "", re.MULTILINE))


def exported() -> set[Name]:
    """Where all public names are defined."""
    found = set()
    for package in PACKAGES:
        if "__all__" in bindings(package):
            found |= {where for name in public(package) if (where := origin(package, name))}
    return found


def faults(package: str) -> Iterator[str]:
    """What is missing from a package's surface, a line each."""
    if "__all__" not in bindings(package):
        yield f"{package} has no __all__"
        return
    if not documented(Name(package)):
        yield f"{package} has no docstring"
    known = exported()
    for name in public(package):
        where = origin(package, name)
        if where is None:
            yield f"{package}.{name} is not imported under TYPE_CHECKING: no editor and no type checker sees it"
            continue
        if not documented(where):
            yield f"{package}.{name} has no docstring"
        yield from (f"{method} has no docstring" for method in undocumented_methods(where))
        for part, found in signature(where):
            if found.name and found not in known and not is_variable(found):
                yield f"{part} names {found}, which no __init__ exports"


if __name__ == "__main__":
    for package in PACKAGES:
        for fault in dict.fromkeys(faults(package)):
            print(fault)
