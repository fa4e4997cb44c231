"""Code that was written for pyspark.ml trains with sparkopt, unchanged: ``python -m sparkopt script.py``.

The modules of pyspark.ml give sparkopt's classes of the same names to everyone who asks, but to pyspark itself, to
sparkopt and to the libraries that know pyspark.ml's own classes.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import runpy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from sparkopt.errors import DataError, DivergedError, IncompatibleError, ParameterError, SchemaError
from sparkopt.io.filesystem import brief
from sparkopt.machine import Table
from sparkopt.values import dataclass

__all__ = ["Replacement", "replace_pyspark_ml", "run_script"]

logger = logging.getLogger(__name__)

PATCHED = (
    "pyspark.ml",
    "pyspark.ml.pipeline",
    "pyspark.ml.classification",
    "pyspark.ml.regression",
    "pyspark.ml.tuning",
)
KEEP_THEIRS = ("pyspark", "sparkopt", "mlflow", "cloudpickle", "pickle")
"""Packages whose code is given pyspark.ml's own classes."""
REFUSALS = (DataError, DivergedError, IncompatibleError, ParameterError, SchemaError)
"""What sparkopt does not train; pyspark.ml may."""
OF_THE_DATA = (DataError, SchemaError)
"""Refusals of rows and columns; where pyspark.ml does not train on them either, they say why."""


@dataclass
class Replacement:
    """sparkopt's classes in place of pyspark.ml's, from `replace_pyspark_ml` to `restore`; also a context manager.

    Attributes
    ----------
    fits : dict of (str, str) to (int, float)
        How many fits there were and the seconds they took, by the library and the name of the estimator; without
        those of fits within them. Of pipelines and OneVsRest only the parts count.
    refused : dict of str to str
        Why pyspark.ml trained estimators that sparkopt has, by their name.
    """

    fits: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _before: dict[str, type[ModuleType]] = field(default_factory=dict, repr=False)

    def restore(self) -> None:
        """Give pyspark.ml's own classes again; what was imported before stays as it is."""
        global _active
        if _active is not self:
            return
        for name, kind in self._before.items():
            sys.modules[name].__class__ = kind
        _watch_fits(None)
        _active = None

    def report(self) -> str:
        """Return lines of what each library trained, and why pyspark.ml trained what sparkopt has."""
        lines = []
        for library in ("sparkopt", "pyspark.ml"):
            own = [(name, *counted) for (by, name), counted in self.fits.items() if by == library]
            parts = [f"{name} {number} ({seconds:.1f} s)" for name, number, seconds in own]
            lines.append(f"fits by {library + ':':<12}{', '.join(parts) or 'none'}")
        lines += [f"{name} by pyspark.ml, since sparkopt refuses it: {why}" for name, why in self.refused.items()]
        return "\n".join(lines)

    def _add(self, library: str, name: str, seconds: float) -> None:
        number, before = self.fits.get((library, name), (0, 0.0))
        self.fits[library, name] = number + 1, before + seconds

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()


_active: Replacement | None = None


def replace_pyspark_ml() -> Replacement:
    """Let imports from pyspark.ml give sparkopt's classes of the same names, in the whole process.

    Call it before the imports, in a notebook in its first cell. Estimators, models, searches, pipelines and summaries
    that sparkopt has are replaced: ``LogisticRegression``, ``LinearSVC``, ``LinearRegression``,
    ``GeneralizedLinearRegression``, ``AFTSurvivalRegression``, ``FMRegressor``, ``FMClassifier``,
    ``MultilayerPerceptronClassifier``, ``OneVsRest``, ``CrossValidator``, ``TrainValidationSplit``, ``Pipeline``. All
    others are pyspark.ml's. What sparkopt refuses to train, pyspark.ml trains, and the reason is logged; rows that
    neither trains on are sparkopt's error, which names column, partition and row.

    Returns
    -------
    Replacement
        Says what was trained by which library; its ``restore`` ends it, as does leaving a ``with`` block.

    Examples
    --------
    >>> from sparkopt.integrations import replace_pyspark_ml
    >>> with replace_pyspark_ml() as replaced:
    ...     from pyspark.ml.classification import LogisticRegression
    ...     model = LogisticRegression(regParam=0.01).fit(df)
    >>> type(model).__module__
    'sparkopt.ml.classification'
    >>> print(replaced.report())
    fits by sparkopt:   LogisticRegression 1 (... s)
    fits by pyspark.ml: none
    """
    global _active
    if _active is not None:
        return _active
    found = Replacement()
    for name, ours in _replacements().items():
        module = sys.modules[name]
        found._before[name] = module.__class__
        module.__class__ = _replacing(module.__class__, ours)
    _watch_fits(found)
    _active = found
    return found


@functools.cache
def _replacements() -> dict[str, dict[str, type]]:
    """Return sparkopt's classes, by pyspark.ml's module and their name there."""
    from sparkopt import ml

    found = {}
    for module in PATCHED:
        theirs = vars(import_module(module))
        names = [name for name in ml.__all__ if _is_pysparks(theirs.get(name))]
        found[module] = {name: getattr(ml, name) for name in names}
    return found


@functools.cache
def _originals() -> Mapping[type, type]:
    """Return pyspark.ml's estimators, by sparkopt's that are given in place of them."""
    pairs = [
        (ours, vars(sys.modules[module])[name])
        for module, own in _replacements().items()
        for name, ours in own.items()
    ]
    return {ours: theirs for ours, theirs in pairs if hasattr(ours, "fit")}


def _is_pysparks(kind: Any) -> bool:
    return inspect.isclass(kind) and kind.__module__.startswith("pyspark.ml.")


def _replacing(before: type[ModuleType], ours: Mapping[str, type]) -> type[ModuleType]:
    """Return a module's class that gives some names' replacements to those who import them."""

    class Replacing(before):  # type: ignore[misc, valid-type]  # the class that the module has
        def __getattribute__(self, name: str) -> Any:
            if name in ours and _is_given_ours(sys._getframe(1).f_code.co_filename):
                return ours[name]
            return super().__getattribute__(name)

    return Replacing


def _is_given_ours(file: str) -> bool:
    """Whether code of a file, which asks for a class, is given sparkopt's."""
    return not file.startswith(_keeping())


@functools.cache
def _keeping() -> tuple[str, ...]:
    """Return how the names of files begin whose code is given pyspark.ml's own classes."""
    found = ["<frozen "]  # importlib
    for name in KEEP_THEIRS:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found += [f"{folder}{os.sep}" for folder in spec.submodule_search_locations]
        elif spec is not None and spec.origin:
            found.append(spec.origin)
    return tuple(found)


_PARTS: ContextVar[list[float] | None] = ContextVar("sparkopt_drop_in_parts", default=None)
"""Seconds of each fit within the one under way."""
COMPOSED = frozenset({"Pipeline", "OneVsRest"})


def _watch_fits(replacement: Replacement | None) -> None:
    """Let every estimator of pyspark.ml tell its fits, or none."""
    from pyspark.ml.base import Estimator

    before = getattr(Estimator.fit, "unwatched", None)
    if before is not None:
        Estimator.fit = before  # type: ignore[method-assign]
    if replacement is None:
        return
    fit = Estimator.fit

    @functools.wraps(fit)
    def watched(self: Any, dataset: Any, params: Any = None) -> Any:
        if type(self) not in _originals():
            own = type(self).__module__.startswith("pyspark.ml.")
            with _counted(replacement, "pyspark.ml", type(self).__name__ if own else ""):
                return fit(self, dataset, params)
        try:
            with _counted(replacement, "sparkopt", type(self).__name__):
                return fit(self, dataset, params)
        except REFUSALS as error:
            if Table.accepts(dataset):  # rows without Spark, which pyspark.ml does not take
                raise
            name, why = type(self).__name__, str(error)
            logger.warning("pyspark.ml trains this %s, which sparkopt refuses: %s", name, why)
            try:
                with _counted(replacement, "pyspark.ml", name):
                    model = fit(as_pysparks(self), dataset, params)
            except Exception as theirs:
                if not isinstance(error, OF_THE_DATA):
                    raise
                logger.warning("pyspark.ml does not train this %s either: %s", name, brief(theirs))
                raise error from theirs
            replacement.refused.setdefault(name, why)
            return model

    watched.unwatched = fit  # type: ignore[attr-defined]
    Estimator.fit = watched  # type: ignore[method-assign]


@contextmanager
def _counted(replacement: Replacement, library: str, name: str) -> Iterator[None]:
    """Count a fit that ends well; one without a name is none of pyspark.ml's or sparkopt's."""
    around, start = _PARTS.get(), time.perf_counter()
    within: list[float] = []
    token = _PARTS.set(within)
    try:
        yield
    finally:
        _PARTS.reset(token)
        seconds = time.perf_counter() - start
        if around is not None:
            around.append(seconds)
    if name and name not in COMPOSED:
        replacement._add(library, name, seconds - sum(within))


def as_pysparks(stage: Any) -> Any:
    """Return pyspark.ml's estimator with the parameters and the uid of one of sparkopt's; others as they are."""
    theirs = _originals().get(type(stage))
    if theirs is None:
        return stage
    found = theirs()
    found._resetUid(stage.uid)
    for param in stage.params:
        if stage.isSet(param) and found.hasParam(param.name):
            found._set(**{param.name: _value(stage, param.name)})
    return found


def _value(stage: Any, name: str) -> Any:
    """Return a parameter as pyspark.ml's estimators hold it: their own stages, and bounds as matrices and vectors."""
    getter = getattr(stage, f"get{name[0].upper()}{name[1:]}", None)
    value = stage.getOrDefault(name) if getter is None else getter()
    if name in ("estimator", "classifier"):
        return as_pysparks(value)
    return [as_pysparks(one) for one in value] if name == "stages" else value


def run_script(path: str, arguments: Sequence[str] = ()) -> None:
    """Run a script as ``python path arguments`` does, with sparkopt's classes in place of pyspark.ml's.

    At its end, what was trained by which library is written to standard error.

    Parameters
    ----------
    path : str
        The script.
    arguments : sequence of str
        Its arguments.

    Raises
    ------
    ParameterError
        Where there is no such file.
    """
    if not Path(path).is_file():
        raise ParameterError(f"there is no file {path!r} to run.")
    before = sys.argv, list(sys.path)
    sys.argv, sys.path[:0] = [path, *arguments], [str(Path(path).resolve().parent)]
    replaced = replace_pyspark_ml()
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        replaced.restore()
        sys.argv, sys.path[:] = before
        for line in replaced.report().splitlines():
            print(f"sparkopt: {line}", file=sys.stderr)
