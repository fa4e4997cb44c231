"""References in docstrings, such as :class:`~sparkopt.losses.Logistic`, as links that mkdocs checks."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(~?)([\w.]+)`")


class CrossReferences(griffe.Extension):
    """Writes each reference as a link to the full name; a bare name is one of the same module."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package."""
        self._rewrite(pkg)

    def _rewrite(self, item: griffe.Object) -> None:
        if item.docstring:
            item.docstring.value = ROLE.sub(lambda found: link(item, found[1], found[2]), item.docstring.value)
        for member in item.members.values():
            if not member.is_alias:
                self._rewrite(member)


def link(item: griffe.Object, tilde: str, name: str) -> str:
    """Return the link that stands for a reference."""
    head = name.partition(".")[0]
    try:
        target = name if head == "sparkopt" else item.resolve(head) + name[len(head) :]
    except griffe.NameResolutionError:
        target = name  # mkdocs says where it stands
    return f"[`{name.rpartition('.')[2] if tilde else name}`][{target}]"
