"""One call reads a notebook's parameter, on Databricks and elsewhere."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from sparkopt.errors import ParameterError
from sparkopt.integrations.notebook import widget


class Widgets:
    """What Databricks' widgets do: the first default makes one, whose value stays what a person or a job has set."""

    def __init__(self, **values):
        self.values = values

    def text(self, name, default):
        self.values.setdefault(name, default)

    def get(self, name):
        return self.values[name]


def databricks(monkeypatch, **values):
    widgets = Widgets(**values)
    shell = SimpleNamespace(user_ns={"dbutils": SimpleNamespace(widgets=widgets)})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    return widgets


def test_elsewhere_it_is_an_environment_variable(monkeypatch):
    assert widget("epochs", 5) == 5
    monkeypatch.setenv("SPARKOPT_EPOCHS", "2")
    assert widget("epochs", 5) == 2
    assert widget("epochs", "5") == "2"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert widget("epochs", 5.0) == 2.0


def test_on_databricks_it_is_a_widget(monkeypatch):
    monkeypatch.setenv("SPARKOPT_EPOCHS", "2")
    widgets = databricks(monkeypatch, rate="0.25")
    assert widget("epochs", 5) == 5
    assert widget("rate", 0.1) == 0.25
    assert widgets.values == {"epochs": "5", "rate": "0.25"}


def test_a_wrong_value_is_reported_by_name(monkeypatch):
    databricks(monkeypatch, epochs="many")
    with pytest.raises(ParameterError, match="widget 'epochs' must be of type int. Got 'many' instead."):
        widget("epochs", 5)
