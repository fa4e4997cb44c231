"""``sparkopt.pyfunc``: the loader that MLflow models of earlier versions name."""

from sparkopt.integrations.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
