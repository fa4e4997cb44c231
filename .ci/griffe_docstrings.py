"""What the API reference changes in docstrings: references become links; shared parameters are listed."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(~?)([\w.]+)`")
ARGUMENTS = "ml.arguments.LinearArguments"


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package."""
        shared = pkg[ARGUMENTS].docstring.value.partition("----------\n")[2]
        name_theirs(pkg)
        self._rewrite(pkg, shared)

    def _rewrite(self, item: griffe.Object, shared: str) -> None:
        if item.docstring:
            text = item.docstring.value.replace("{shared}", shared)
            item.docstring.value = ROLE.sub(lambda found: link(item, found[1], found[2]), text)
            if item.is_class and inherits_constructor(item):
                item.docstring.parser_options["warn_unknown_params"] = False
        for member in item.members.values():
            if not member.is_alias:
                self._rewrite(member, shared)


def name_theirs(item: griffe.Object) -> None:
    """Let the package's ``dataclass`` be the standard library's, whose fields are a constructor's parameters."""
    for member in item.members.values():
        if member.is_alias and member.target_path == "sparkopt.values.dataclass":
            member.target_path = "dataclasses.dataclass"
        elif not member.is_alias:
            name_theirs(member)


def inherits_constructor(item: griffe.Class) -> bool:
    """Whether the constructor is another library's, whose parameters are not in the source."""
    paths = [base if isinstance(base, str) else base.canonical_path for base in item.bases]
    return not item.parameters and any(not path.startswith("sparkopt") for path in paths)


def link(item: griffe.Object, tilde: str, name: str) -> str:
    """Return the link for a reference such as :class:`~sparkopt.losses.Logistic`, which mkdocs checks."""
    head = name.partition(".")[0]
    try:
        target = name if head == "sparkopt" else item.resolve(head) + name[len(head) :]
    except griffe.NameResolutionError:
        target = name  # mkdocs reports it
    return f"[`{name.rpartition('.')[2] if tilde else name}`][{target}]"
