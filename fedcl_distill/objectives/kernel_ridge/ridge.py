"""Kernel ridge regression: what a set of samples predicts in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcl_distill.errors import DivergenceError

_GROWTH, _TRIES = 10.0, 6


def ridge_coefficients(gram: Tensor, labels: Tensor, regularisation: float) -> Tensor:
    """float64 (n, classes): (K + λ·tr(K)/n·I)⁻¹ y, differentiable; multiplied with a kernel they predict.

    Where rounding leaves the matrix without a Cholesky factor, λ grows tenfold, up to a million times.

    Args:
        gram: float64 (n, n), symmetric: K.
        labels: (n, classes): y.
        regularisation: λ, relative to the mean of the diagonal.

    Raises:
        DivergenceError: K is not finite, or no λ tried makes it positive definite.
    """
    diagonal = torch.diagonal(gram).mean()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if bool(torch.isfinite(gram).all()):
        for attempt in range(_TRIES + 1):
            ridge = regularisation * _GROWTH**attempt * diagonal
            factor, failed = torch.linalg.cholesky_ex(gram + ridge * identity)
            if not failed:
                return torch.cholesky_solve(labels.to(gram.dtype), factor)
    raise DivergenceError(
        f"the kernel of the {len(gram)} synthetic samples is not positive definite; try a smaller learning rate or a "
        "larger regularisation"
    )
