"""Private samples from a gradient: what a federated server can read from a client's update."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.errors import DataError, DivergenceError, SettingsError
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, NonNegative, Positive, settings


@settings
class GradientInversion:
    """Gradient matching by cosine similarity (Geiping et al. 2020, equation 4; after Zhu et al. 2019).

    Minimises 1 − cos(∇ of a guess, ∇ seen) + ``smoothness`` · total variation of the guess, by Adam on the signs of the
    gradient, whose rate falls to a tenth after 3/8, 5/8 and 7/8 of the steps, as the authors do.

    Attributes:
        steps: of Adam.
        learning_rate: of Adam, in network inputs.
        smoothness: weight of the total variation; images only.
        restarts: from other noise; the guess whose gradient fits best is taken.
    """

    steps: Count = 1000
    learning_rate: Positive = 0.1
    smoothness: NonNegative = 1e-3
    restarts: Count = 1

    def invert(
        self,
        network: nn.Module,
        gradients: Sequence[Tensor],
        labels: Tensor,
        sample_shape: tuple[int, ...],
        *,
        seed: int,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Guess the batch behind ``gradients``.

        Args:
            network: as it was when the gradients were taken; needs second derivatives.
            gradients: of the batch's mean cross entropy, one for each parameter of ``network``.
            labels: int64 (n,) of the batch. They can be read from the gradient of the last layer (Zhao et al. 2020,
                for one sample), so the attacker is given them.
            sample_shape: of one sample.
            seed: of the starting noise.
            bounds: smallest and largest network inputs, each of a shape that broadcasts to the batch.

        Returns:
            float32 (n, …): network inputs.

        Raises:
            DataError: gradients do not fit the parameters, or are zero or not finite.
            DivergenceError: no start led to a finite gradient.
        """
        parameters = [one for one in network.parameters() if one.requires_grad]
        _check(gradients, parameters)
        found: list[tuple[float, Tensor]] = []
        for restart in range(self.restarts):
            generator = generator_for(seed, "inversion", restart)
            start = torch.randn(len(labels), *sample_shape, generator=generator).to(labels.device)
            found.append(self._descend(network, parameters, gradients, labels, start, bounds))
        mismatch, best = min(found, key=lambda one: one[0])
        if not mismatch < float("inf"):
            raise DivergenceError("gradient inversion diverged")
        return best

    def _descend(
        self,
        network: nn.Module,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        labels: Tensor,
        start: Tensor,
        bounds: tuple[Tensor, Tensor] | None,
    ) -> tuple[float, Tensor]:
        guess = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([guess], lr=self.learning_rate)
        milestones = [self.steps * part // 8 for part in (3, 5, 7)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
        mismatch = torch.tensor(float("inf"))
        for _ in range(self.steps):
            loss = F.cross_entropy(network(guess), labels)
            own = torch.autograd.grad(loss, parameters, create_graph=True)
            mismatch = 1 - _cosine(own, gradients)
            (slope,) = torch.autograd.grad(mismatch + self.smoothness * _total_variation(guess), guess)
            guess.grad = slope.sign()
            optimiser.step()
            schedule.step()
            if bounds is not None:
                guess.data.clamp_(*bounds)
        value = float(mismatch.detach())
        return (value if value == value else float("inf")), guess.detach()


def batch_gradients(network: nn.Module, inputs: Tensor, labels: Tensor) -> list[Tensor]:
    """Gradients of the mean cross entropy: what one local step of FedAvg adds to the model, divided by −rate."""
    parameters = [one for one in network.parameters() if one.requires_grad]
    return [one.detach() for one in torch.autograd.grad(F.cross_entropy(network(inputs), labels), parameters)]


def peak_signal_to_noise(left: Tensor, right: Tensor) -> Tensor:
    """float32 (n,) in dB of pairs of samples (n, …) in [0, 1]; infinity for equal ones."""
    return -10 * (left - right).square().flatten(1).mean(dim=1).log10()


def matched(originals: Tensor, guesses: Tensor) -> Tensor:
    """float32 (n,) in dB: each original beside its own guess, in the order that fits best; batches of up to six.

    A gradient does not tell the order of a batch.
    """
    count = len(originals)
    if len(guesses) != count or not 1 <= count <= 6:
        raise SettingsError(f"cannot match {len(guesses)} guesses with {count} originals; expected as many, up to 6")
    orders = [peak_signal_to_noise(originals, guesses[list(order)]) for order in permutations(range(count))]
    return max(orders, key=lambda one: float(one.clamp(max=1000.0).sum()))


def _cosine(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    product = torch.stack([(one * other).sum() for one, other in zip(left, right, strict=True)]).sum()
    norms = [torch.stack([one.square().sum() for one in side]).sum().sqrt() for side in (left, right)]
    return product / (norms[0] * norms[1]).clamp(min=1e-30)


def _total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels; 0 for feature vectors."""
    if images.ndim != 4:
        return images.new_zeros(())
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def _check(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    shapes = [tuple(one.shape) for one in gradients], [tuple(one.shape) for one in parameters]
    if shapes[0] != shapes[1]:
        raise DataError(f"gradients of shapes {shapes[0]} do not fit parameters of shapes {shapes[1]}")
    if not all(torch.isfinite(one).all() for one in gradients) or not any(one.any() for one in gradients):
        raise DataError("gradients are zero, or hold NaN or infinity")
