"""Record the steps of Muon and SOAP for ``test_matrices.py``, by optax and by the authors' code.

``python tests/optim/record_matrix_steps.py FOLDER > tests/optim/matrix_steps.json`` made the file beside it, with
PyTorch, JAX, optax 0.2.8, and soap.py of https://github.com/nikhilvyas/SOAP in that folder, in double precision.
"""

from __future__ import annotations

import json
import sys

import jax
import numpy as np
import torch
from optax import apply_updates, contrib

STEPS = 25


def problem(rows: int, columns: int) -> tuple[np.ndarray, ...]:
    """Start W and b, and the curvatures of ½ ‖A W B − C‖² + ½ ‖b − 1‖²."""
    rng = np.random.default_rng(rows)
    A = np.eye(rows) + 0.3 * rng.normal(size=(rows, rows))
    B = np.eye(columns) + 0.3 * rng.normal(size=(columns, columns))
    return rng.normal(size=(rows, columns)), rng.normal(size=columns), A, B, rng.normal(size=(rows, columns))


def gradients(W: np.ndarray, b: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray) -> tuple:
    """Return those of W and b."""
    return A.T @ (A @ W @ B - C) @ B.T, b - 1.0


def muon(rows: int, columns: int) -> list:
    """Return optax's steps."""
    W, b, *rest = problem(rows, columns)
    params, method = {"W": jax.numpy.array(W), "b": jax.numpy.array(b)}, contrib.muon(0.05)
    state, steps = method.init(params), []
    for _ in range(STEPS):
        found = gradients(np.asarray(params["W"]), np.asarray(params["b"]), *rest)
        updates, state = method.update(dict(zip("Wb", map(jax.numpy.array, found), strict=True)), state, params)
        params = apply_updates(params, updates)
        steps.append([*np.asarray(params["W"]).ravel().tolist(), *np.asarray(params["b"]).tolist()])
    return steps


def soap(rows: int, columns: int) -> list:
    """Return the steps of the authors' code."""
    from soap import SOAP

    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # it computes bases in single precision
    W, b, *rest = problem(rows, columns)
    params = [torch.nn.Parameter(torch.tensor(one)) for one in (W, b)]
    method, steps = SOAP(params, lr=0.05, weight_decay=0.0, precondition_frequency=10), []
    for _ in range(STEPS):
        for one, gradient in zip(params, gradients(*(p.detach().numpy() for p in params), *rest), strict=True):
            one.grad = torch.tensor(gradient)
        method.step()
        steps.append([value for one in params for value in one.detach().numpy().ravel().tolist()])
    return steps


def main() -> None:
    """Print the steps."""
    sys.path.append(sys.argv[1])
    jax.config.update("jax_enable_x64", True)
    found = {"muon 4 x 3": muon(4, 3), "muon 3 x 5": muon(3, 5), "soap 3 x 3": soap(3, 3)}
    print("{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(steps)}" for name, steps in found.items()) + "\n}")


if __name__ == "__main__":
    main()
