"""Linear regressions as PMML 4.4 (Data Mining Group, *Predictive Model Markup Language*), as pyspark.ml writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from xml.etree import ElementTree

from sparkopt.typing import Floats

__all__ = ["regression_pmml"]

NAMESPACE = "http://www.dmg.org/PMML-4_4"
DESCRIPTION = "linear regression"


def regression_pmml(names: Sequence[str], target: str, coefficients: Floats, intercept: float, version: str) -> str:
    """Return a linear regression as a PMML document.

    Parameters
    ----------
    names : sequence of str
        The features' names.
    target : str
        The target's name.
    coefficients : ndarray of shape (features,)
        Coefficients in the features' units.
    intercept : float
        Intercept.
    version : str
        Version of sparkopt, for the header.
    """
    root = ElementTree.Element("PMML", version="4.4", xmlns=NAMESPACE)
    header = _add(root, "Header", description=DESCRIPTION)
    _add(header, "Application", name="sparkopt", version=version)
    _add(header, "Timestamp").text = datetime.now().isoformat(timespec="seconds")
    fields = [*names, target]
    dictionary = _add(root, "DataDictionary", numberOfFields=str(len(fields)))
    for name in fields:
        _add(dictionary, "DataField", name=name, optype="continuous", dataType="double")
    model = _add(root, "RegressionModel", modelName=DESCRIPTION, functionName="regression")
    schema = _add(model, "MiningSchema")
    for name in fields:
        _add(schema, "MiningField", name=name, usageType="target" if name == target else "active")
    table = _add(model, "RegressionTable", intercept=repr(float(intercept)))
    for name, coefficient in zip(names, coefficients, strict=True):
        _add(table, "NumericPredictor", name=name, coefficient=repr(float(coefficient)))
    ElementTree.indent(root, space="    ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{text}'


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)
