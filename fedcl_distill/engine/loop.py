"""One run of the engine: its state, its preparation, its loop."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.checkpoint import load_checkpoint, restoring, save_checkpoint
from fedcl_distill.context import RealSampler, SetupContext, SyntheticBatch
from fedcl_distill.engine.size import Budget
from fedcl_distill.errors import DependencyError, DivergenceError, SettingsError
from fedcl_distill.files import remove
from fedcl_distill.labels import Labelling, on_simplex
from fedcl_distill.network_sources import DrawnNetwork, NetworkSampler
from fedcl_distill.networks import calibrate, keeps_statistics
from fedcl_distill.objectives import MatchContext
from fedcl_distill.optimisers import Bounded, Group, build_optimiser
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.synthetic.quantise import rounded

if TYPE_CHECKING:
    from fedcl_distill.engine.engine import MethodSpec


@dataclass
class Average:
    """Mean of tensors by name, over iterates (Polyak and Juditsky 1992).

    Attributes:
        count: iterates so far.
        means: their mean; empty before the first.
    """

    count: int = 0
    means: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Count ``tensors``, of the same names and shapes every time, in."""
        if not self.count:
            self.means = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in tensors.items()}
        self.count += 1
        for name, mean in self.means.items():
            mean.add_((tensors[name] - mean) / self.count)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"count": self.count, "means": {name: mean.cpu() for name, mean in self.means.items()}}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`state` returned."""
        self.count = int(state["count"])
        self.means = {name: mean.to(device) for name, mean in state["means"].items()}


_LABELS = "labels"


@dataclass
class DistillationState:
    """Where a run stands. Random draws need no state: each is named by the seed and its view (see ``seeding``).

    Attributes:
        arrays: the stored arrays; those being optimised are leaves that require gradients.
        labels: of the decoded samples; a leaf where they are learned.
        learned: what the objective learns beside them, by name; leaves.
        optimiser: of all leaves.
        supply: hands out the networks, which may learn as well.
        step: synthetic steps done.
        seconds: spent by the budget's clock, over all sittings.
        losses: loss of every step done.
        average: of the stored arrays and the labels, where a method asks for it.
    """

    arrays: dict[str, Tensor]
    labels: Tensor
    learned: dict[str, Tensor]
    optimiser: Bounded
    supply: NetworkSampler
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    average: Average = field(default_factory=Average)

    def save(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Write a checkpoint atomically; ``fingerprint`` names the run it belongs to.

        Raises:
            StorageError: the checkpoint could not be written; an older one is untouched.
        """
        content = {
            "tensors": {name: tensor.detach().cpu() for name, tensor in self._tensors().items()},
            "optimiser": self.optimiser.state_dict(),
            "supply": self.supply.state(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "average": self.average.state(),
        }
        save_checkpoint(path, fingerprint, content)

    def load(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Continue from the checkpoint at ``path``, if there is one.

        Raises:
            CheckpointError: the file is damaged, or belongs to a run with another seed, setting or data set.
        """
        content = load_checkpoint(path, fingerprint)
        if content is None:
            return
        with restoring(path):
            self._restore(content)

    def _restore(self, content: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(content["tensors"][name])
        self.optimiser.load_state_dict(content["optimiser"])
        self.supply.restore(content["supply"])
        self.step, self.seconds, self.losses = content["step"], content["seconds"], content["losses"]
        self.average.restore(content["average"], self.labels.device)
        if not all(type(loss) is float for loss in self.losses) or len(self.losses) != self.step:
            raise ValueError(f"it has {len(self.losses)} losses of {self.step} steps")
        if type(self.step) is not int or not 0 <= self.seconds < math.inf:
            raise ValueError(f"it stands at step {self.step} after {self.seconds} s")

    def count_in(self) -> None:
        """Let the average count stored arrays and labels as they are now, those that are learned."""
        self.average.add({name: one for name, one in self._result().items() if one.requires_grad})

    def outcome(self) -> tuple[dict[str, Tensor], Tensor]:
        """Stored arrays and labels that the run has come to: their average where there is one, else the latest."""
        result = {**self._result(), **self.average.means}
        return {name: result[_array(name)] for name in self.arrays}, result[_LABELS]

    def _result(self) -> dict[str, Tensor]:
        return {**{_array(name): array for name, array in self.arrays.items()}, _LABELS: self.labels}

    def _tensors(self) -> dict[str, Tensor]:
        return {**self._result(), **{f"learned {name}": one for name, one in self.learned.items()}}


def _array(name: str) -> str:
    return f"array {name}"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: ``fraction`` of its budget in [0, 1], ``rate`` in steps a second, times in seconds."""

    step: int
    loss: float
    seconds: float
    fraction: float

    @property
    def rate(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0

    @property
    def remaining_seconds(self) -> float:
        return self.seconds * (1 - self.fraction) / self.fraction if self.fraction else float("inf")


@dataclass
class Run:
    """One run.

    Attributes:
        state: what is optimised, and how far it is.
        budget: how far it may go.
        name: computes ``fingerprint``; asked for only where there are checkpoints, since it reads all data.
        ended: a callback may set it, so that no further step is done and the run counts as complete.
    """

    state: DistillationState
    budget: Budget
    name: Callable[[], str]
    ended: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Names data, size, seed and settings; a checkpoint of another fingerprint is refused."""
        return self.name()

    @property
    def progress(self) -> Progress:
        state = self.state
        done = self.ended or self.budget.settled(state.losses)
        fraction = 1.0 if done else self.budget.progress(state.step, state.seconds)
        return Progress(state.step, state.losses[-1] if state.losses else float("nan"), state.seconds, fraction)

    def summary(self) -> dict[str, Any]:
        """What provenance records of the run, as JSON values."""
        state = self.state
        return {
            "steps": state.step,
            "seconds": round(state.seconds, 3),
            "final_loss": state.losses[-1] if state.losses else None,
            **({"learned": {name: one.tolist() for name, one in state.learned.items()}} if state.learned else {}),
        }


class Callback:
    """Hooks of a run; each does nothing unless overridden."""

    def on_prepare(self, done: int, total: int, what: str) -> None:
        """While parts prepare themselves: ``done`` of about ``total`` steps of ``what``, such as "networks".

        Preparation precedes ``on_start``, or goes on before the first step of a run.
        """

    def on_abort(self) -> None:
        """When preparation failed or was interrupted, before ``on_start``."""

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint was loaded."""

    def on_step(self, run: Run) -> None:
        """After every step."""

    def on_end(self, run: Run) -> None:
        """After the last step, also when it was interrupted or failed."""


_OBSERVERS: ContextVar[tuple[Callback, ...]] = ContextVar("observers", default=())


@contextmanager
def observed_by(*callbacks: Callback) -> Iterator[None]:
    """Inside the block, ``callbacks`` hear of every run of the engine in this thread, beside its own.

    For whoever shows the progress of work that distils many times and far below: a stream, a federation.
    """
    token = _OBSERVERS.set((*_OBSERVERS.get(), *callbacks))
    try:
        yield
    finally:
        _OBSERVERS.reset(token)


def observers() -> tuple[Callback, ...]:
    """Callbacks of the blocks around, see :func:`observed_by`."""
    return _OBSERVERS.get()


class OnProgress(Callback):
    """Calls a function with the :class:`Progress` of every step."""

    def __init__(self, report: Callable[[Progress], Any]) -> None:
        self._report = report

    def on_step(self, run: Run) -> None:
        self._report(run.progress)


class Checkpoints(Callback):
    """Saves the state every so many seconds, and at the end of an unfinished run; removes it when the run is done."""

    def __init__(self, path: str | os.PathLike[str], every_seconds: float = 30.0) -> None:
        self._path, self._every = path, every_seconds
        self._saved_at = 0.0

    def on_start(self, run: Run) -> None:
        self._saved_at = time.monotonic()

    def on_step(self, run: Run) -> None:
        if time.monotonic() - self._saved_at >= self._every:
            self._save(run)

    def on_end(self, run: Run) -> None:
        if run.progress.fraction < 1:
            self._save(run)
        else:
            remove(self._path)

    def _save(self, run: Run) -> None:
        run.state.save(self._path, run.fingerprint)
        self._saved_at = time.monotonic()


class ProgressBar(Callback):
    """A bar with steps, rate, loss and remaining time, drawn by rich.

    Raises:
        DependencyError: rich is not installed.
    """

    def __init__(self, description: str = "distilling") -> None:
        try:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError as error:
            raise DependencyError("the progress bar needs rich: pip install 'fedcl-distill[report]'") from error
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
        self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn())
        self._description, self._prepares = description, False
        self._task = self._bar.add_task(description, total=1.0, detail="")

    def on_prepare(self, done: int, total: int, what: str) -> None:
        self._bar.start()
        self._prepares = True
        self._bar.update(self._task, description=f"preparing {what}", completed=done / total, detail=f"{done}/{total}")

    def on_abort(self) -> None:
        self._bar.stop()

    def on_start(self, run: Run) -> None:
        self._bar.start()

    def on_step(self, run: Run) -> None:
        now = run.progress
        if self._prepares:
            self._prepares = False
            self._bar.reset(self._task, description=self._description)
        detail = f"step {now.step} · {now.rate:.1f}/s · loss {now.loss:.4g}"
        self._bar.update(self._task, completed=now.fraction, detail=detail)

    def on_end(self, run: Run) -> None:
        self._bar.stop()


_LOG = logging.getLogger("fedcl_distill")
_WATCHED_SECONDS, _LONG_SECONDS = 2.0, 600.0


class Forecast(Callback):
    """Logs once, after two seconds of steps, how long a budget of steps will take.

    Args:
        name: of the method.
        chosen: whether whoever runs it chose the budget; if not, more than ten minutes are worth a warning.
    """

    def __init__(self, name: str, *, chosen: bool) -> None:
        self._name, self._chosen = name, chosen
        self._since: tuple[float, int] | None = None
        self._told = False

    def on_step(self, run: Run) -> None:
        now, step, budget = time.monotonic(), run.state.step, run.budget
        if self._since is None:  # after the first step, which may have prepared networks
            self._since = now, step
        began, first = self._since
        if self._told or budget.steps is None or now - began < _WATCHED_SECONDS or step == first:
            return
        self._told = True
        rate = (step - first) / (now - began)
        left = (budget.steps - step) / rate
        if budget.seconds is not None:
            left = min(left, budget.seconds - run.state.seconds)
        level = logging.WARNING if left > _LONG_SECONDS and not self._chosen else logging.INFO
        advice = "" if self._chosen else "; budget=Budget(seconds=300), for instance, ends it earlier"
        text = "%s: step %d of %d at %.1f a second, about %s to go%s"
        _LOG.log(level, text, self._name, step, budget.steps, rate, duration(left), advice)


def duration(seconds: float) -> str:
    """``seconds`` as people say it.

    Example:
        >>> duration(9900)
        '2 h 45 min'
    """
    minutes, whole = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes >= 10 else f"{60 * minutes + whole} s"


def fake_quantize(arrays: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """``arrays``, rounded by the codec's own rule; gradients pass as if they were not.

    Every value lies within its array's range, where the straight-through estimator (Bengio et al. 2013; Jacob et al.
    2018 for quantised networks) is the identity. Rounding what is rounded changes nothing, so that a set of such arrays
    survives its way through the codec to the last bit. Soft labels, sent in 8 bits at least, are not among them.

    Args:
        arrays: float32, finite.
        bits: depth, one of :data:`~fedcl_distill.synthetic.BITS`; 32 gives the arrays themselves.
    """
    if bits == 32:
        return dict(arrays)
    return {name: _straight_through(array, bits) for name, array in arrays.items()}


def _straight_through(array: Tensor, bits: int) -> Tensor:
    values = array.detach()
    sent = torch.from_numpy(rounded(values.cpu().numpy(), bits)).to(values)
    return sent + (array - values)


# By which fraction of a budget in seconds the preparation of each part must end, in the order in which they prepare.
_DECODER_UNTIL, _TEACHER_UNTIL, _NETWORKS_UNTIL = 1 / 3, 0.4, 0.5


@dataclass(frozen=True)
class Ready:
    """All that a run starts from; ``classes``, int64 (n,), and ``starts`` (n, …) belong to the decoded samples."""

    state: DistillationState
    classes: Tensor
    starts: Tensor
    labelling: Labelling


def prepare(method: MethodSpec, problem: SetupContext, counts: Sequence[int], started: float) -> Ready:
    """Let every part of ``method`` prepare itself; ``started`` is when its budget's clock began."""

    def until(fraction: float, path: str) -> SetupContext:
        return replace(
            problem, seed=derive_seed(problem.seed, path), has_time=_deadline(method.budget, started, fraction)
        )

    real, device, how = problem.real, problem.device, method.parameterization
    decoded = how.decoded_counts(counts, real.sample_shape)
    classes = torch.repeat_interleave(torch.arange(real.num_classes), torch.tensor(decoded)).to(device)
    samples = method.init.samples(real, decoded, seed=derive_seed(problem.seed, "initial"))
    arrays = how.start(samples, counts, until(_DECODER_UNTIL, "parameterization"))
    arrays = {name: array.detach().to(device) for name, array in arrays.items()}
    labelling = method.labels.open(until(_TEACHER_UNTIL, "labels"))
    with torch.no_grad():
        labels = labelling.initial(how.decode(arrays), classes).clone()
    learned = {name: one.start.clone().to(device).requires_grad_() for name, one in method.objective.learned().items()}
    state = DistillationState(
        arrays=arrays,
        labels=labels if method.labels.learning_rate is None else labels.requires_grad_(),
        learned=learned,
        optimiser=Bounded(
            build_optimiser(method.optimiser, _groups(method, arrays, labels, learned)),
            method.decay_start,
            method.max_grad_norm,
            method.max_step,
        ),
        supply=method.networks.prepare(until(_NETWORKS_UNTIL, "networks")),
    )
    return Ready(state, classes, samples.to(device), labelling)


def _deadline(budget: Budget, started: float, fraction: float) -> Callable[[], bool]:
    if budget.seconds is None:
        return lambda: True
    until = started + fraction * budget.seconds
    return lambda: budget.now() < until


def _groups(method: MethodSpec, arrays: dict[str, Tensor], labels: Tensor, learned: dict[str, Tensor]) -> list[Group]:
    """What is optimised at which rate; the stored arrays come first."""
    free = [array.requires_grad_() for name, array in arrays.items() if name not in method.parameterization.frozen]
    groups = [Group(tuple(free))]
    if method.labels.learning_rate is not None:
        groups.append(Group((labels,), method.labels.learning_rate))
    rates = method.objective.learned()
    return groups + [Group((tensor,), rates[name].learning_rate) for name, tensor in learned.items()]


_NORM_SAMPLES = 16  # real samples a class for batch norm, as in the code of Zhao et al. 2021
_NO_SECOND = re.compile("differentiate twice|derivative for .* is not implemented|double backward")
_MAX_INPUT = 1e6  # in deviations of the real data; norms inside a network would hide that samples ran away


@dataclass
class Loop:
    """One run of a method on one data set.

    Attributes:
        classes: int64 (n,): the class of each decoded sample.
        starts: float32 (n, …): what each was meant to be before the first step.
    """

    method: MethodSpec
    run_: Run
    real: RealSampler
    classes: Tensor
    starts: Tensor
    seed: int

    def run(self, hooks: Sequence[Callback], started: float) -> bool:
        """Step until the budget is spent; True if the user interrupted it. Its clock began at ``started``."""
        run, state, before = self.run_, self.run_.state, self.run_.state.seconds
        view, target = None, None
        for hook in hooks:
            hook.on_start(run)
        try:
            while run.progress.fraction < 1:
                index, within = divmod(state.step, self.method.steps_per_network)
                if view is None or within == 0:
                    view = self._view(index)
                    target = self.method.objective.target(view, self.real)
                self._step(view, target)
                if within == self.method.steps_per_network - 1:
                    with torch.no_grad():
                        side = self._side().detached()
                    state.supply.update(index, view.seed, side)
                state.seconds = before + self.method.budget.now() - started
                if self.method.averaging_start < 1 and run.progress.fraction >= self.method.averaging_start:
                    state.count_in()
                for hook in hooks:
                    hook.on_step(run)
            if not state.step:
                _LOG.warning("%s: %s allows no step; samples stay as they started", self.method.name, run.budget)
        except KeyboardInterrupt:
            return True
        finally:
            for hook in hooks:
                hook.on_end(run)
        return False

    def _view(self, index: int) -> MatchContext:
        """The view number ``index``: the same one whenever it is asked for, so that a resumed run goes on exactly."""
        seed = derive_seed(self.seed, "view", index)
        data = self.real.data
        drawn = self.run_.state.supply.draw(index, seed)
        self._prepare_networks(drawn, seed)
        augmentation = augmentation_for(data, self.method.augmentation)
        draw = augmentation.draw(data.num_classes, data.sample_shape, generator_for(seed, "augmentation"))
        return MatchContext(drawn.network, draw, seed, drawn.target_network, index)

    def _prepare_networks(self, drawn: DrawnNetwork, seed: int) -> None:
        """Both sides are seen in evaluation mode: without dropout, batch norm with the statistics of real samples."""
        if drawn.target_network is not None:
            drawn.target_network.eval()
        if keeps_statistics(drawn.network):
            calibrate(drawn.network, self.real.draw(_NORM_SAMPLES, derive_seed(seed, "batch norm"))[0])
        drawn.network.eval()

    def _side(self) -> SyntheticBatch:
        state = self.run_.state
        decoded = self.method.parameterization.decode(fake_quantize(state.arrays, self.method.bits))
        return SyntheticBatch(decoded, self.classes, state.labels, state.learned, self.starts)

    def _step(self, view: MatchContext, target: Any) -> None:
        method, state = self.method, self.run_.state
        state.optimiser.zero_grad()
        try:
            value, size = self._differentiate(view, target)
        except RuntimeError as error:
            if not _NO_SECOND.search(str(error)):
                raise
            raise SettingsError(
                f"{method.name} takes second derivatives, which a layer of the network does not have: {error}"
            ) from error
        if not (abs(value) < math.inf and size < _MAX_INPUT):
            raise DivergenceError(
                f"{method.name}: loss {value:g}, largest input {size:g} at step {state.step + 1}; "
                "try a smaller learning rate"
            )
        state.optimiser.step(self.run_.progress.fraction)
        self._project()
        state.losses.append(value)
        state.step += 1

    def _differentiate(self, view: MatchContext, target: Any) -> tuple[float, float]:
        """Loss and largest absolute input; the gradient goes through decoded samples into the stored arrays."""
        side = self._side()
        decoded = side.inputs
        side = replace(side, inputs=decoded.detach().requires_grad_())
        value = 0.0
        for loss in self.method.objective.losses(view, target, side):
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.item()
        if side.inputs.grad is not None and decoded.requires_grad:
            decoded.backward(side.inputs.grad)  # type: ignore[no-untyped-call]
        return value, float(decoded.detach().abs().max())

    @torch.no_grad()
    def _project(self) -> None:
        """Back to where values are allowed: pixels into their range, learned labels onto the simplex."""
        state = self.run_.state
        if state.labels.requires_grad:
            state.labels.copy_(on_simplex(state.labels))
        if self.method.clamp:
            for name in self.method.parameterization.pixel_arrays:
                self._clamp(state.arrays[name])

    def _clamp(self, array: Tensor) -> None:
        data = self.real.data
        corners = torch.tensor(data.value_range)[:, None].expand(2, data.sample_shape[0])
        if data.spec.feature_ranges:
            corners = torch.tensor(data.spec.feature_ranges).T
        corners = data.normalisation.apply(corners).to(self.real.device)
        shape = (1, -1) + (1,) * (array.ndim - 2)
        array.clamp_(corners[0].view(shape), corners[1].view(shape))
