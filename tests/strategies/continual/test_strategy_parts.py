"""What strategies are made of, each against a second, plain way to get the same."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual import (
    AGEM,
    MIR,
    DERpp,
    GDumb,
    Replay,
    ReservoirMemory,
    Source,
    class_incremental,
    task_incremental,
)
from strategies.continual.regularisation import EWC, ICaRLLoss, LwF, NearestMean, NetworkEmbedding
from strategies.continual.replay import interference

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

DATA = blobs((1, 8, 8), classes=4, per_class=40)


def _network(seed=0):
    return Architecture("mlp", {"width": 8}).build((1, 8, 8), 4, seed=seed)


def _train(plugins, experiences=2, benchmark=None, criterion=None, network=None, rate=0.05):
    benchmark = benchmark or class_incremental(Splits(DATA, DATA), experiences)
    network = network or _network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        strategy = Naive(
            model=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=rate),
            criterion=criterion or nn.CrossEntropyLoss(),
            train_mb_size=16,
            train_epochs=2,
            plugins=plugins,
            evaluator=EvaluationPlugin(),
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
    return strategy


def test_interference_is_what_a_step_on_a_copy_does():
    network = _network()
    inputs, labels = DATA.inputs()[:16], DATA.labels[:16]
    others, other_labels = DATA.inputs()[40:], DATA.labels[40:]
    weights = deepcopy(network.state_dict())
    found = interference(network, inputs, labels, others, other_labels, rate=0.5)
    assert all(torch.equal(weights[name], one) for name, one in network.state_dict().items())
    moved = deepcopy(network)
    step = torch.optim.SGD(moved.parameters(), lr=0.5)
    F.cross_entropy(moved(inputs), labels).backward()
    step.step()
    with torch.no_grad():
        expected = [
            F.cross_entropy(moved(one[None]), label[None]) - F.cross_entropy(network(one[None]), label[None])
            for one, label in zip(others, other_labels, strict=True)
        ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_mir_replays_the_most_interfered_of_what_is_held():
    class Watching(Replay):
        checked = 0

        def after_forward(self, strategy, *args, **kwargs):
            if self.batch is None:
                return
            current = len(strategy.mb_x) - len(self.batch.rows)
            held = self.memory.recall()
            gain = interference(
                strategy.model,
                strategy.mb_x[:current],
                strategy.mb_y[:current],
                held.inputs(),
                held.labels,
                rate=strategy.optimizer.param_groups[0]["lr"],
            )
            top = gain.sort(descending=True).values[: len(self.batch.rows)]
            torch.testing.assert_close(gain[self.batch.rows].sort(descending=True).values, top)
            assert len(self.batch.rows.unique()) == len(self.batch.rows)
            self.checked += 1

    plugin = Watching(ReservoirMemory(3000), DATA, retrieval=MIR(candidates=50))
    _train([plugin])
    assert plugin.checked == 10


def test_a_gem_projects_as_the_closed_form_says_and_never_against_the_past():
    """Chaudhry et al. 2019, equation 11, on every step."""

    class Checking(AGEM):
        projections = 0

        def after_backward(self, strategy, **kwargs):
            before = torch.cat([p.grad.flatten() for p in strategy.model.parameters()])
            super().after_backward(strategy, **kwargs)
            after = torch.cat([p.grad.flatten() for p in strategy.model.parameters()])
            if not self.buffers:
                assert torch.equal(before, after)
                return
            reference = self.reference_gradients
            along = torch.dot(before, reference)
            if along < 0:
                self.projections += 1
                torch.testing.assert_close(after, before - along / reference.square().sum() * reference)
            else:
                assert torch.equal(before, after)
            assert torch.dot(after, reference) >= -1e-5

    source = Source(ReservoirMemory(2000), DATA)
    plugin = Checking(source, sample_size=32)
    _train([source, plugin])
    assert plugin.projections > 0
    assert source.replayed == 0
    assert source.bytes_kept[-1] == source.memory.bytes_kept > 0


def test_a_gem_draws_its_reference_from_the_memory_alone():
    source = Source(ReservoirMemory(2000), DATA)
    _train([source])
    inputs, labels, _ = AGEM(source, 20).sample_from_memory()
    held = source.memory.recall()
    nearest = torch.cdist(inputs.flatten(1), held.inputs().flatten(1)).min(dim=1)
    assert nearest.values.max() < 0.02
    assert torch.equal(held.labels[nearest.indices], labels)


def test_ewc_adds_the_penalty_of_its_definition_and_holds_weights():
    """Kirkpatrick et al. 2017, equation 3, without its factor a half, as Avalanche has it."""

    class Checking(EWC):
        penalties = ()

        def before_backward(self, strategy, **kwargs):
            plain = float(strategy.loss)
            super().before_backward(strategy, **kwargs)
            if strategy.clock.train_exp_counter:
                expected = sum(
                    float((self.importances[0][name].data * (one - self.saved_params[0][name].data).square()).sum())
                    for name, one in strategy.model.named_parameters()
                )
                assert float(strategy.loss.detach()) - plain == pytest.approx(50 * expected, abs=1e-4)
                self.penalties += (expected,)

    plugin = Checking(50.0)
    kept = _train([plugin]).model
    assert max(plugin.penalties) > 1e-4
    network = _network()
    network.load_state_dict({name: one.data for name, one in plugin.saved_params[0].items()})
    first = DATA.subset(torch.arange(80))

    def loss(weights, one, label):
        return F.cross_entropy(functional_call(network, weights, (one[None],)), label[None])

    weights = {name: one.detach() for name, one in network.named_parameters()}
    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, first.inputs(), first.labels)
    for name, gradients in each.items():
        exact = gradients.square().mean(dim=0)
        torch.testing.assert_close(plugin.importances[0][name].data, exact, rtol=1e-3, atol=1e-7)
    free = _train([EWC(0.0)]).model

    def wandered(model):
        pairs = zip(model.parameters(), network.parameters(), strict=True)
        weights = [plugin.importances[0][name].data for name, _ in model.named_parameters()]
        return sum(float((w * (a - b).square()).sum()) for w, (a, b) in zip(weights, pairs, strict=True))

    assert wandered(kept) < 0.8 * wandered(free)
    parameters = sum(one.numel() for one in network.parameters())
    assert plugin.bytes_kept == 2 * 2 * 4 * parameters


@pytest.mark.parametrize("kind", [class_incremental, task_incremental])
def test_lwf_adds_its_penalty_over_all_old_classes_also_where_tasks_are_told(kind):
    class Checking(LwF):
        penalties = ()

        def before_backward(self, strategy, **kwargs):
            plain = float(strategy.loss)
            super().before_backward(strategy, **kwargs)
            teacher = self.lwf.prev_model
            if teacher is None:
                return
            old = sorted(range(2 * strategy.clock.train_exp_counter))
            with torch.no_grad():
                now = F.log_softmax(strategy.mb_output[:, old] / 2, dim=1)
                then = F.softmax(teacher(strategy.mb_x)[:, old] / 2, dim=1)
            expected = float((then * (then.log() - now)).sum(dim=1).mean())
            assert float(strategy.loss.detach()) - plain == pytest.approx(3 * expected, abs=1e-4)
            self.penalties += (expected,)

    plugin = Checking(3.0, 2.0)
    _train([plugin], benchmark=kind(Splits(DATA, DATA), 2))
    assert max(plugin.penalties) > 1e-4
    assert plugin.bytes_kept == 4 * sum(one.numel() for one in _network().parameters())


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_dark_scores_are_those_of_the_moment_a_sample_was_first_held(bits):
    models = []

    class Watching(DERpp):
        def after_training_exp(self, strategy, *args, **kwargs):
            models.append(deepcopy(strategy.model).eval())
            super().after_training_exp(strategy)

    plugin = Watching(ReservoirMemory({4: 1200, 8: 2000, 32: 7000}[bits], bits), DATA)
    _train([plugin], rate=0.2)
    held = plugin.memory.recall()
    old = held.hard_labels < 2
    assert 0 < int(old.sum()) < len(held)
    with torch.no_grad():
        expected = torch.where(old[:, None], models[0](held.inputs()), models[1](held.inputs()))
        other = models[1](held.inputs())
    stored = plugin.logits_of(torch.arange(len(held)))
    step = float(stored.max() - stored.min()) / 255
    slack = {4: 8, 8: 2.5, 32: 1.5}[bits]  # scores are stored twice, and belong to samples that are
    assert float((stored - expected).abs().max()) <= slack * step
    assert float((stored - other)[old].abs().max()) > 20 * step
    assert plugin.bytes_kept[-1] == plugin.memory.bytes_kept + 4 * len(held) + 8


def test_gdumb_learns_from_the_memory_alone_and_from_the_start():
    class Watching(GDumb):
        starts = ()

        def after_forward(self, strategy, *args, **kwargs):
            held = self.memory.recall().inputs().flatten(1)
            assert torch.cdist(strategy.mb_x.flatten(1), held).min(dim=1).values.max() < 0.02
            assert len(strategy.mb_x) == len(strategy.mb_y) == len(strategy.mb_task_id) == 16
            if strategy.clock.train_exp_iterations == 0:
                self.starts += (deepcopy(strategy.model.state_dict()),)

    network = _network()
    fresh = deepcopy(network.state_dict())
    _train([plugin := Watching(ReservoirMemory(2000), network, DATA)], network=network)
    assert len(plugin.starts) == 2
    for start in plugin.starts:
        assert all(torch.equal(start[name], one) for name, one in fresh.items())
    assert any(not torch.equal(network.state_dict()[name], one) for name, one in fresh.items())


def test_nearest_means_are_those_of_exemplars_and_classes_without_any_are_never_chosen():
    network, held = _network(), SyntheticSet.of_real(DATA.subset(torch.arange(80)))
    scores = NearestMean(network, held)(DATA.inputs())
    embedded = F.normalize(network.embed(DATA.inputs()).detach(), dim=1)
    means = torch.stack([F.normalize(embedded[40 * c : 40 * c + 40].mean(0), dim=0) for c in (0, 1)])
    assert torch.equal(scores.argmax(dim=1), torch.cdist(embedded, means).argmin(dim=1))
    torch.testing.assert_close(NetworkEmbedding(network).embed(DATA, 0), embedded)


def test_icarl_asks_new_classes_for_labels_and_old_ones_for_what_they_said():
    replay, loss = Replay(ReservoirMemory(2000), DATA, soft=False), ICaRLLoss()
    strategy = _train([replay, loss], criterion=loss)
    old = deepcopy(strategy.model)
    assert loss.old_classes == [0, 1, 2, 3]
    loss.old_classes = [0, 1]
    network = _network(5)
    inputs, labels = DATA.inputs()[::7], DATA.labels[::7]
    strategy.mbatch = [inputs, labels, labels]
    loss.before_forward(strategy)
    targets = F.one_hot(labels, 4).float()
    targets[:, :2] = torch.sigmoid(old(inputs)[:, :2]).detach()
    scores = network(inputs)
    expected = F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(dim=1).mean()
    torch.testing.assert_close(loss(scores, labels), expected)


def test_soft_labels_reach_the_loss_beside_one_hot_ones():
    class Soft(ReservoirMemory):
        def recall(self):
            held = super().recall()
            if held is None:
                return None
            labels = 0.8 * F.one_hot(held.labels, 4) + 0.05
            return SyntheticSet(held.arrays, held.parameterization, labels, held.spec)

    seen = []

    class Watching(Replay):
        def after_forward(self, strategy, *args, **kwargs):
            seen.append(strategy.mb_y.clone())

    _train([Watching(Soft(2000), DATA)])
    assert all(labels.ndim == 1 for labels in seen[:10])
    for labels in seen[10:]:
        assert set(labels[:16].flatten().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(labels[16:].max(dim=1).values, torch.full((16,), 0.85))
    seen.clear()
    _train([Watching(Soft(2000), DATA, soft=False)])
    assert all(labels.dtype == torch.int64 for labels in seen)
