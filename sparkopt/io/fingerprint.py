"""Fingerprints of runs: two runs with equal fingerprints take the same steps, so one can resume the other.

A fingerprint holds JSON values that do not depend on the process: no addresses and none of Python's hashes. Objects
are described by type and attributes, functions by their code.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np

from sparkopt.typing import Floats

__all__ = ["Fingerprint", "describe", "differences", "digest", "rounded"]

Fingerprint: TypeAlias = Mapping[str, Any]
"""Parts of a run's description by name, as JSON values."""


def describe(value: Any) -> Any:
    """Return JSON values that describe an object: equal for equal objects, in every process.

    Examples
    --------
    >>> from sparkopt.penalties import L2
    >>> describe(L2(0.5))
    {'type': 'sparkopt.penalties.elastic_net.ElasticNet', 'reg_param': 0.5, 'elastic_net_param': 0.0, 'factors': None}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, np.ndarray):
        return {"array": hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest(), "shape": value.shape}
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return [[describe(key), describe(item)] for key, item in value.items()]
    if isinstance(value, FunctionType):
        return {"function": _name(value), "code": _code(value.__code__), "holds": _captured(value)}
    if isinstance(value, functools.partial):
        return {"function": describe(value.func), "holds": describe([*value.args, value.keywords])}
    if isinstance(value, ModuleType):
        return {"module": value.__name__}
    if isinstance(value, type):
        return _name(value)
    if isinstance(value, BuiltinFunctionType):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    if callable(value) and isinstance(getattr(value, "__wrapped__", None), FunctionType):  # compiled, say
        return {"type": _name(type(value)), "function": describe(value.__wrapped__)}
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        held = getattr(value, "__dict__", {})
    return {"type": _name(type(value)), **{name: describe(item) for name, item in held.items()}}


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _code(code: CodeType) -> Any:
    constants = [_code(constant) if isinstance(constant, CodeType) else repr(constant) for constant in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _captured(function: FunctionType) -> Any:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return describe([*cells, *(function.__defaults__ or ())])


def rounded(values: Floats, scale: float) -> float:
    """Return one number that distinguishes vectors, also by the order of their entries, up to rounding.

    Parameters
    ----------
    values : ndarray of shape (size,)
        The vector.
    scale : float
        The unit; the result is rounded to six decimals of it.
    """
    direction = np.random.default_rng(0).standard_normal(len(values))
    return round(float(direction @ values) / (scale or 1.0), 6)


def digest(fingerprint: Fingerprint) -> str:
    """Return 16 characters that identify a fingerprint."""
    canonical = json.dumps(fingerprint, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Return the names of the parts in which two fingerprints differ."""
    plain = [json.loads(json.dumps(fingerprint)) for fingerprint in (one, other)]
    return [name for name in sorted({*one, *other}) if plain[0].get(name) != plain[1].get(name)]
