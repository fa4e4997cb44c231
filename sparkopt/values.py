"""``dataclass``, as the standard library's, whose methods are shared by all classes instead of compiled for each.

The package has some hundred small classes. The standard library compiles six methods for each frozen one, half a
millisecond: half of the time of an import, in every process of a fit. This one compiles the constructor alone.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

COMPARED, SHOWN = "__sparkopt_compared__", "__sparkopt_shown__"
"""Attributes of classes: what takes the fields that equality and hashes compare, and the names of those in text."""


def _dataclass(cls: type | None = None, /, *, frozen: bool = False, eq: bool = True) -> Any:
    """Make a class a data class.

    Parameters
    ----------
    frozen : bool, default False
        Whether a field can be set only once, as the constructor does. Values then have a hash, by their fields.
    eq : bool, default True
        Whether values are equal by their fields.

    A class method ``__completed__`` is called of a class that is made. A text (``__repr__``) that a class inherits is
    kept, where the standard library writes its own.
    """

    def made(kind: type) -> type:
        return _made(kind, frozen, eq)

    return made if cls is None else made(cls)


if TYPE_CHECKING:  # type checkers know the standard library's
    from dataclasses import dataclass
else:
    dataclass = _dataclass


def _made(cls: type, frozen: bool, eq: bool) -> type:
    own = vars(cls)
    has_hash = own.get("__hash__") is not None or ("__hash__" in own and "__eq__" not in own)
    text: Any = cls.__repr__
    has_text, has_eq = text not in (object.__repr__, _text), "__eq__" in own
    with _thawed(cls, frozen):
        dataclasses.dataclass(repr=False, eq=False)(cls)
    found, given = dataclasses.fields(cls), dict[str, Any]()
    if not has_text:
        given |= {SHOWN: tuple(field.name for field in found if field.repr), "__repr__": _text}
    if eq:
        given[COMPARED] = _fields_of([field.name for field in found if field.compare])
        if not has_eq:
            given["__eq__"] = _equal
        if not has_hash:
            given["__hash__"] = _hash if frozen else None
    if frozen:
        given |= {"__setattr__": _set_once, "__delattr__": _refuse_to_delete}
    for name, value in given.items():
        setattr(cls, name, value)
    parameters = own["__dataclass_params__"]
    parameters.frozen, parameters.eq, parameters.repr = frozen, eq, True
    if (completed := getattr(cls, "__completed__", None)) is not None:
        completed()
    return cls


@contextmanager
def _thawed(cls: type, frozen: bool) -> Iterator[None]:
    """Let the standard library, for which no class is frozen here, derive one from classes that are."""
    bases = [vars(base)["__dataclass_params__"] for base in cls.__mro__[1:] if "__dataclass_params__" in vars(base)]
    if any(base.frozen is not frozen for base in bases):
        raise TypeError(f"{cls.__name__} and the classes that it derives from must all be frozen, or none of them.")
    for base in bases:
        base.frozen = False
    try:
        yield
    finally:
        for base in bases:
            base.frozen = frozen


@recursive_repr()
def _text(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in getattr(self, SHOWN))
    return f"{type(self).__qualname__}({shown})"


def _fields_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the fields of a value; caches ask for their hash several times an image."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return staticmethod(lambda value: tuple([getattr(value, name) for name in names]))


def _equal(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    fields = getattr(self, COMPARED)
    return fields(self) == fields(other)


def _hash(self: Any) -> int:
    return hash(getattr(self, COMPARED)(self))


def _set_once(self: Any, name: str, value: Any) -> None:
    values = self.__dict__
    if name in values or name not in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    values[name] = value  # half the time that object.__setattr__ takes; small fits set ten thousand fields


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
