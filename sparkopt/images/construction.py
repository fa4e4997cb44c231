"""How transforms are written: the text of each, and what a constructor says to missing or unknown arguments."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from reprlib import recursive_repr
from typing import Any

from sparkopt.images.other_names import MISSING, our_parameter

__all__ = ["ExplainsArguments"]


class ExplainsArguments:
    """A data class whose constructor says what to write where its arguments are not those that it has."""

    @classmethod
    def __completed__(cls) -> None:
        """Explain what the constructor raises: the decorator of data classes calls it, once it has made one."""
        if "__init__" in vars(cls):
            cls.__init__ = _explained(cls.__name__, vars(cls)["__init__"])  # type: ignore[method-assign]

    @recursive_repr()
    def __repr__(self) -> str:
        """Return the call that makes it, without parameters that have their defaults, as scikit-learn prints."""
        fields = sorted(dataclasses.fields(self), key=lambda field: field.kw_only is True)  # type: ignore[arg-type]
        values = [(field, getattr(self, field.name)) for field in fields if field.repr]
        shown = ", ".join(f"{field.name}={value!r}" for field, value in values if value != field.default)
        return f"{type(self).__qualname__}({shown})"


def _explained(name: str, constructor: Callable[..., None]) -> Callable[..., None]:
    @wraps(constructor)
    def explained(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            constructor(self, *arguments, **named)
        except TypeError:
            signature = inspect.signature(constructor)
            try:
                signature.bind(self, *arguments, **named)
            except TypeError as error:
                reason = _reason(name, signature, arguments, named) or f"{name}: {error}"
            else:  # what it does with them raised it
                raise
            raise TypeError(f"{reason}. It is {name}{_shown(signature)}.") from None

    return explained


def _reason(name: str, signature: inspect.Signature, arguments: Any, named: Mapping[str, Any]) -> str | None:
    """Return which argument is wrong, and what to write; None for one that is given twice."""
    known = list(signature.parameters.values())[1:]
    names = [one.name for one in known]
    for other in named:
        if other not in names:
            close = get_close_matches(other, names, 1)
            ours = our_parameter(name, other, names) or (close[0] if close else None)
            return f"{name} has no parameter {other!r}" + (f"; take {ours}" if ours else "")
    by_place = [one.name for one in known if one.kind is not one.KEYWORD_ONLY]
    if len(arguments) > len(by_place):
        count = f"at most {len(by_place)} parameters" if by_place else "no parameters"
        hint = "; write p=… by its name" if "p" in names and "p" not in by_place else ""
        return f"{name} takes {count} without their names. Got {len(arguments)} instead{hint}"
    missing = [one.name for one in known if one.default is one.empty and one.name not in named]
    missing = [one for one in missing if one not in by_place[: len(arguments)]]
    if not missing:
        return None
    hint = f"; {MISSING[name]}" if name in MISSING else ""
    return f"{name} needs {' and '.join(map(repr, missing))}{hint}"


def _shown(signature: inspect.Signature) -> str:
    parameters = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(inspect.Signature(parameters[1:]))
