"""``sparkopt.values.dataclass`` makes what the standard library's ``dataclass`` makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from dataclasses import KW_ONLY, FrozenInstanceError, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sparkopt import values


def classes(make):
    """Return one class of each kind, made by one of the two decorators."""

    @make(frozen=True)
    class Plain:
        """Documented."""

        a: int
        b: Any = "text"
        shared: ClassVar[int] = 3

        @cached_property
        def twice(self) -> int:
            return 2 * self.a

    @make(frozen=True)
    class Derived(Plain):
        c: tuple[int, ...] = ()

    @make(frozen=True)
    class Fields:
        a: int = field(compare=False)
        b: list[int] = field(default_factory=list, repr=False)
        c: int = field(init=False, default=5)
        _: KW_ONLY
        d: float = 1.5

        def __post_init__(self) -> None:
            object.__setattr__(self, "a", self.a + 1)

    @make(frozen=True, eq=False)
    class ByIdentity:
        a: int

    @make
    class Mutable:
        a: int
        b: list[int] = field(default_factory=list)

    @make(eq=False)
    class MutableByIdentity:
        a: int

    @make(frozen=True)
    class OwnMethods:
        a: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and abs(self.a) == abs(other.a)

        def __hash__(self) -> int:
            return hash(abs(self.a))

        def __repr__(self) -> str:
            return f"<{self.a}>"

    @make(frozen=True)
    class OwnEquality:
        a: int

        def __eq__(self, other: object) -> bool:
            return True

    @make(frozen=True)
    class Empty:
        pass

    return [value for value in locals().values() if isinstance(value, type)]


OURS, THEIRS = classes(values.dataclass), classes(dataclass)
PAIRS = [pytest.param(ours, theirs, id=ours.__name__) for ours, theirs in zip(OURS, THEIRS, strict=True)]
every = pytest.mark.parametrize(("ours", "theirs"), PAIRS)


def made(kind):
    """Return some values of a class."""
    if not dataclasses.fields(kind):
        return [kind(), kind()]
    return [kind(1), kind(1), kind(-1), kind(2, [3]) if len(dataclasses.fields(kind)) > 1 else kind(2)]


def outcome(function):
    """Return what a function returns, or what it raises; addresses left out."""
    try:
        found = function()
    except Exception as error:  # noqa: BLE001  # compared
        return type(error).__name__, str(error).replace(" 'a'", "").replace("'a'", "")
    return repr(found).split(" at 0x")[0]


@every
def test_values_agree(ours, theirs):
    mine, other = made(ours), made(theirs)
    assert [repr(one).split(" at 0x")[0] for one in mine] == [repr(one).split(" at 0x")[0] for one in other]
    assert [[a == b for a in mine] for b in mine] == [[a == b for a in other] for b in other]
    assert [[a != b for a in mine] for b in mine] == [[a != b for a in other] for b in other]
    assert mine[0] != other[0] or ours.__name__ == "OwnEquality"  # another class
    assert ours.__match_args__ == theirs.__match_args__
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)
    if "ByIdentity" not in ours.__name__:
        assert [outcome(lambda one=one: hash(one)) for one in mine] == [
            outcome(lambda one=one: hash(one)) for one in other
        ]
    assert dataclasses.asdict(mine[0]) == dataclasses.asdict(other[0])
    assert [field.name for field in dataclasses.fields(ours)] == [field.name for field in dataclasses.fields(theirs)]
    assert ours.__doc__ == theirs.__doc__


@every
def test_fields_are_set_as_theirs_are(ours, theirs):
    if not dataclasses.fields(ours):
        return
    for change in (
        lambda one: setattr(one, "a", 7) or one.a,
        lambda one: setattr(one, "new", 7) or one.new,
        lambda one: delattr(one, "a"),
        lambda one: dataclasses.replace(one, a=9).a,
        lambda one: copy.copy(one) == one,
        lambda one: copy.deepcopy(one) == one,
        lambda one: type(one)(1, 2, 3, 4, 5, 6),
        lambda one: type(one)(),
    ):
        mine, other = outcome(lambda change=change: change(made(ours)[0])), None
        other = outcome(lambda change=change: change(made(theirs)[0]))
        assert mine == other


def test_a_cached_property_is_kept():
    (one, *_) = made(OURS[0])
    assert one.twice == 2
    assert "twice" in vars(one)


@values.dataclass(frozen=True)
class Base:
    """Of this module, so that it can be pickled."""

    a: int


@dataclass(frozen=True)
class OfAUser(Base):
    """A user's own, of the standard library."""

    b: int


@values.dataclass(frozen=True)
class OfAUserAgain(OfAUser):
    c: int


@pytest.mark.parametrize("value", [Base(1), OfAUser(1, 2), OfAUserAgain(1, 2, 3)])
def test_classes_of_users_may_derive_from_ours(value):
    again = pickle.loads(pickle.dumps(value))
    assert (again, hash(again), repr(again)) == (value, hash(value), repr(value))
    with pytest.raises(FrozenInstanceError):
        value.a = 2
    with pytest.raises(FrozenInstanceError):
        value.new = 2
    assert type(value).__dataclass_params__.frozen


def test_a_mutable_class_cannot_derive_from_one_that_is_not():
    with pytest.raises(TypeError):

        @dataclass
        class Mutable(Base):
            b: int


def test_text_of_a_value_within_itself():
    one = OURS[4](1)
    one.b.append(one)
    assert repr(one).endswith("Mutable(a=1, b=[...])")


def test_a_mutable_class_of_ours_cannot_either():
    with pytest.raises(TypeError, match="must all be frozen, or none"):

        @values.dataclass
        class Mutable(Base):
            b: int


SLOTS = {"io/listing.py"}
"""Files whose classes have slots, since there may be millions of values."""


def test_the_package_uses_no_other():
    """Each class of the standard library's costs half a millisecond of every process."""
    folder = Path(values.__file__).parent
    files = [file for file in folder.rglob("*.py") if file.name != "values.py"]
    theirs = re.compile(r"^from dataclasses import [^\n]*\bdataclass\b|@dataclasses\.dataclass", re.MULTILINE)
    assert {file.relative_to(folder).as_posix() for file in files if theirs.search(file.read_text())} == SLOTS
