"""A formula as R and RFormula have it: which columns are used, which products of them, and whether an intercept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from sparkopt.errors import ParameterError
from sparkopt.values import dataclass

__all__ = ["Formula"]

TOKEN = re.compile(r"\s*(`(?:[^`]|``)+`|[^\s~+\-:*`()^]+|[~+\-:*()^])")
OPERATORS = set("~+-:*()^")


@dataclass(frozen=True)
class Formula:
    """Terms of a formula.

    Parameters
    ----------
    label : str
        The column before ``~``; "" without one.
    terms : tuple of tuple of str
        Columns, and products of several; ``.`` stands for all others.
    without : tuple of tuple of str
        Terms that are taken away.
    intercept : bool
        False where the formula has ``- 1`` or ``+ 0``.

    Examples
    --------
    >>> formula = Formula.of("y ~ . + a:b - c - 1")
    >>> formula.label, formula.intercept, formula.terms_of(["a", "b", "c"])
    ('y', False, [('a',), ('b',), ('a', 'b')])
    """

    label: str
    terms: tuple[tuple[str, ...], ...]
    without: tuple[tuple[str, ...], ...]
    intercept: bool

    @classmethod
    def of(cls, text: str) -> Formula:
        """Return what a formula says, such as ``y ~ a + b``.

        ``:`` is a product, ``*`` both columns and their product, ``.`` all others, and ``-`` leaves out; names with
        blanks or signs are between back-ticks.

        Raises
        ------
        ParameterError
            Where it is not understood.
        """
        tokens = _tokens(text)
        label = ""
        if "~" in tokens:
            at = tokens.index("~")
            if at > 1 or "~" in tokens[at + 1 :]:
                raise _refusal(text, "before ~ there must be one column")
            label, tokens = (_name(tokens[0]) if at else ""), tokens[at + 1 :]
        return cls(label, *_terms(tokens, text))

    def features_text(self) -> str:
        """Return the formula without label and intercept.

        Examples
        --------
        >>> Formula.of("y ~ . + a:`b c` - d - 1").features_text()
        '. + `a`:`b c` - `d`'
        """
        added = " + ".join(map(_shown, self.terms))
        return " - ".join([added, *map(_shown, self.without)])

    def terms_of(self, columns: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the terms, where ``columns`` are what ``.`` may stand for: all but those that the terms name."""
        found = dict[tuple[str, ...], None]()
        for term in self.terms:
            if term == (".",):
                found.update(dict.fromkeys((name,) for name in columns if name != self.label))
            elif "." in term:
                raise ParameterError("formula: a dot cannot be part of a product; name the columns.")
            else:
                found[term] = None
        taken = {frozenset(term) for term in self.without}
        return [term for term in found if frozenset(term) not in taken]


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        token = TOKEN.match(text, at)
        if token is None:
            raise _refusal(text, f"{text[at:].strip()[:10]!r} is not understood")
        found.append(token[1])
        at = token.end()
    for sign in "()^":
        if sign in found:
            raise _refusal(text, f"{sign} is not supported; write the terms out")
    return found


def _shown(term: tuple[str, ...]) -> str:
    return ":".join(name if name == "." else f"`{name.replace('`', '``')}`" for name in term)


def _name(token: str) -> str:
    return token[1:-1].replace("``", "`") if token.startswith("`") else token


def _terms(tokens: list[str], text: str) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...], bool]:
    added, removed, intercept = list[tuple[str, ...]](), list[tuple[str, ...]](), True
    sign, at = "+", 0
    if tokens and tokens[0] in "+-":
        sign, at = tokens[0], 1
    while True:
        names, operators = [], []
        while at < len(tokens) and tokens[at] not in "+-":
            names.append(tokens[at])
            if tokens[at] in OPERATORS:
                raise _refusal(text, f"there is no column before {tokens[at]}")
            at += 1
            if at < len(tokens) and tokens[at] in ":*":
                operators.append(tokens[at])
                at += 1
                if at == len(tokens) or tokens[at] in "+-":
                    raise _refusal(text, f"there is no column after {operators[-1]}")
            elif at < len(tokens) and tokens[at] not in "+-":
                raise _refusal(text, f"there is no sign before {tokens[at]}")
        if not names:
            raise _refusal(text, "a term is missing")
        if names in (["1"], ["0"]):
            intercept = (names == ["1"]) == (sign == "+")
        else:
            (added if sign == "+" else removed).extend(_products([_name(name) for name in names], operators))
        if at >= len(tokens):
            return tuple(dict.fromkeys(added)), tuple(removed), intercept
        sign, at = tokens[at], at + 1


def _products(names: list[str], operators: list[str]) -> list[tuple[str, ...]]:
    """Return the terms of ``a:b`` and ``a*b``, which is ``a + b + a:b``."""
    factors, current = [], [names[0]]
    for operator, name in zip(operators, names[1:], strict=True):
        if operator == ":":
            current.append(name)
        else:
            factors.append(current)
            current = [name]
    factors.append(current)
    found = []
    for size in range(1, len(factors) + 1):
        for chosen in combinations(factors, size):
            found.append(tuple(dict.fromkeys(name for factor in chosen for name in factor)))
    return found


def _refusal(text: str, why: str) -> ParameterError:
    return ParameterError(f"formula {text!r}: {why}. It is like 'y ~ a + b + a:b - 1', with . for all other columns.")
