"""Training: loss, optimiser, penalty, rows and engine joined into a fit.

A ``Trainer`` holds the choices; ``fit_many`` trains several models in the same passes over the data, in the solver's
own ``coordinates``. ``fit_smoothed`` trains nonsmooth losses. ``run_identity`` says which checkpoints belong to a
fit; ``lifecycle`` restores them and closes callbacks. The package imports everything up to ``engines`` and
``report``. Start reading in ``trainer``.
"""

from sparkopt.training.coordinates import Initial
from sparkopt.training.smoothing import fit_smoothed
from sparkopt.training.trainer import Fit, Trainer, fit_many

__all__ = ["Fit", "Initial", "Trainer", "fit_many", "fit_smoothed"]
