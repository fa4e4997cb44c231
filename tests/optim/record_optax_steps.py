"""Record the steps of optax's methods for ``test_step_size_free.py``: this needs optax and JAX, which tests do not.

``python tests/optim/record_optax_steps.py > tests/optim/optax_steps.json`` made the file beside it, with optax 0.2.8.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import optax
from optax import contrib

METHODS = {
    "schedule-free-sgd": contrib.schedule_free_sgd(0.1),
    "schedule-free-adamw": contrib.schedule_free_adamw(0.05),
    "prodigy": contrib.prodigy(1.0),
    "dadapt-adam": contrib.dadapt_adamw(1.0),
    "dog": contrib.dog(1.0),
    "dowg": contrib.dowg(1.0),
    "ademamix": contrib.ademamix(0.02),
}
CURVATURES = np.array([1.0, 0.3, 0.05])


def main() -> None:
    """Print 25 steps of each, and the mean that the schedule-free ones end with."""
    jax.config.update("jax_enable_x64", True)
    found = {}
    for name, method in METHODS.items():
        coef = jax.numpy.array([1.0, -2.0, 0.5])
        state, steps = method.init(coef), [coef]
        for _ in range(25):
            update, state = method.update(CURVATURES * coef, state, coef)
            coef = optax.apply_updates(coef, update)
            steps.append(coef)
        found[name] = np.array(steps).tolist()
        if name.startswith("schedule-free"):
            found[f"{name} mean"] = np.asarray(contrib.schedule_free_eval_params(state, coef)).tolist()
    print("{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(steps)}" for name, steps in found.items()) + "\n}")


if __name__ == "__main__":
    main()
