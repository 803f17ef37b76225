"""Someone's own Avalanche script: own model, optimiser, criterion and data; one line changes, heads and tasks stay."""

from __future__ import annotations

import pickle
from functools import partial

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision import transforms

from fedcl_distill import Budget, build_method, load_data
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.training import TrainConfig
from strategies.continual import (
    AGEM,
    ERACE,
    EWC,
    MIR,
    CondensedMemory,
    ContinualSettings,
    DERpp,
    DERppLoss,
    DistilledMemory,
    FineTuning,
    GDumb,
    HybridMemory,
    LwF,
    MemoryBuffer,
    Replay,
    ReservoirMemory,
    Source,
    run_stream,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

TRAIN = transforms.Compose(
    [transforms.RandomCrop(8, padding=1), transforms.ToTensor(), transforms.Normalize((0.3,), (0.35,))]
)
EVAL = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.3,), (0.35,))])


class Digits(Dataset):
    """Pictures and whole numbers, as any torchvision data set has them."""

    def __init__(self, data, count):
        self.images = data.samples[:count, 0].numpy()
        self.targets = data.labels[:count].tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.targets[index]


class MultiHead(MultiTaskModule):
    """A small network with a head for each task, which notes the label and the head of all that it trains on."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        self.head = MultiHeadClassifier(64)
        self.seen = []

    def forward(self, x, task_labels):
        if self.training and task_labels is not None:  # LwF asks all heads
            self.seen.append((x.detach().clone(), task_labels.clone()))
        return self.head(self.body(x), task_labels)


class SingleHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        self.head = IncrementalClassifier(64)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def splits():
    data = load_data("digits")
    return Digits(data.train, 600), Digits(data.test, 300)


def benchmark_of(splits, *, from_zero=False, tasks=True, train=TRAIN):
    return nc_benchmark(
        *splits,
        n_experiences=5,
        task_labels=tasks,
        fixed_class_order=list(range(10)),
        class_ids_from_zero_in_each_exp=from_zero,
        train_transform=train,
        eval_transform=EVAL,
    )


def train(benchmark, plugins, model=None, criterion=None, epochs=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model or MultiHead()
        strategy = Naive(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), lr=0.005),
            criterion=criterion or nn.CrossEntropyLoss(),
            train_mb_size=32,
            train_epochs=epochs,
            plugins=plugins,
            evaluator=EvaluationPlugin(),
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
    return strategy


def accuracies(strategy, benchmark):
    strategy.model.eval()
    found = []
    for experience in benchmark.test_stream:
        items = [experience.dataset[index] for index in range(len(experience.dataset))]
        inputs, labels = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
        with torch.no_grad():
            logits = strategy.model(inputs, torch.full((len(items),), experience.task_label))
        found.append(float((logits.argmax(dim=1) == labels).float().mean()))
    return found


def samples_in_a_wrong_head(model, benchmark):
    """Those whose nearest training image belongs to another task than the head that they went through."""
    inputs = [
        torch.stack([one.dataset.eval()[i][0] for i in range(len(one.dataset))]) for one in benchmark.train_stream
    ]
    tasks = torch.cat([torch.full((len(one),), index) for index, one in enumerate(inputs)])
    everything = torch.cat(inputs).flatten(1)
    seen, heads = (torch.cat(parts) for parts in zip(*model.seen, strict=True))
    distance, nearest = torch.cdist(seen.flatten(1), everything).min(dim=1)
    assert distance.max() < 0.2, "without random transforms, what is trained on is in the training data"
    return int((tasks[nearest] != heads).sum()), len(seen)


def reservoir():
    return ReservoirMemory(5_000)


def herded():
    return DistilledMemory(5_000, distiller=build_method("herding"))


def hybrid():
    return HybridMemory((ReservoirMemory(2_500), DistilledMemory(2_500, distiller=build_method("random"))))


def avalanches_own(memory):
    return [ReplayPlugin(mem_size=50, storage_policy=MemoryBuffer(memory, 50))], None


def replay(memory):
    return [Replay(memory)], None


def mir(memory):
    return [Replay(memory, retrieval=MIR(candidates=2))], None


def a_gem(memory):
    return [source := Source(memory), AGEM(source, 32)], None


def der(memory):
    plugin = DERpp(memory)
    return [plugin], DERppLoss(plugin, nn.CrossEntropyLoss(), alpha=0.1, beta=1.0)


def er_ace(memory):
    plugin = Replay(memory, early=True)
    return [plugin], ERACE(plugin, nn.CrossEntropyLoss())


@pytest.mark.parametrize("from_zero", [False, True], ids=["own labels", "labels from zero in each task"])
@pytest.mark.parametrize("memory", [reservoir, herded, hybrid])
@pytest.mark.parametrize("strategy", [avalanches_own, replay, mir, a_gem, der, er_ace])
def test_every_remembered_sample_goes_through_its_own_head(splits, strategy, memory, from_zero):
    benchmark = benchmark_of(splits, from_zero=from_zero, train=EVAL)
    plugins, criterion = strategy(memory())
    trained = train(benchmark, plugins, criterion=criterion, epochs=1)
    wrong, seen = samples_in_a_wrong_head(trained.model, benchmark)
    assert wrong == 0
    assert seen > 1.2 * 600, "something was replayed"
    assert sum(accuracies(trained, benchmark)) / 5 > 0.7


@pytest.mark.parametrize("from_zero", [False, True])
def test_gdumb_trains_every_head_from_the_memory_alone(splits, from_zero):
    benchmark, model = benchmark_of(splits, from_zero=from_zero, train=EVAL), MultiHead()
    trained = train(benchmark, [GDumb(herded(), model)], model=model, epochs=8)
    assert samples_in_a_wrong_head(model, benchmark)[0] == 0
    assert min(accuracies(trained, benchmark)) > 0.8


def test_condensed_samples_go_through_their_own_head(splits):
    """They lie between real ones: by which label a head answers tells whose they are."""
    benchmark = benchmark_of(splits, from_zero=True, train=EVAL)
    memory = CondensedMemory(
        8_000, distiller=build_method("dm", architecture="mlp:width=16", augmentation="none"), budget=Budget(steps=2)
    )
    plugin = Replay(memory)
    trained = train(benchmark, [plugin])
    held = plugin.buffer.everything()
    assert {(int(t), int(y)) for t, y in zip(held.tasks, held.labels, strict=True)} == {
        (task, label) for task in range(5) for label in (0, 1)
    }
    assert min(accuracies(trained, benchmark)) > 0.9


def test_with_heads_replay_is_no_worse_than_none_and_near_avalanches_own(splits):
    benchmark = benchmark_of(splits)
    mean = {
        name: sum(accuracies(train(benchmark, plugins), benchmark)) / 5
        for name, plugins in {
            "none": [],
            "avalanche": [ReplayPlugin(mem_size=60)],
            "buffer": avalanches_own(reservoir())[0],
            "ours": [Replay(reservoir())],
        }.items()
    }
    assert min(mean["buffer"], mean["ours"]) > mean["none"] - 0.03, mean  # digits of 300 images: chance
    assert min(mean["buffer"], mean["ours"]) > mean["avalanche"] - 0.05, mean


def test_regularisers_serve_several_heads(splits):
    benchmark = benchmark_of(splits, from_zero=True)
    trained = train(benchmark, [EWC(0.2, samples=30), LwF()], epochs=2)
    assert sum(accuracies(trained, benchmark)) / 5 > 0.75


@pytest.mark.parametrize("labels", ["soft", "finetuning"])
def test_what_several_heads_cannot_do_is_refused_before_training(splits, labels):
    benchmark, model = benchmark_of(splits), MultiHead()
    plugin = Replay(DistilledMemory(5_000, distiller=build_method("frepo", architecture="mlp:width=16")))
    if labels == "finetuning":
        plugin = Replay(reservoir())
    with pytest.raises(SettingsError, match=r"heads|one head"):
        train(benchmark, [plugin, FineTuning(plugin, TrainConfig(1))], model=model)
    assert model.seen == []


def test_a_memory_too_small_is_refused_before_training(splits):
    benchmark, model = benchmark_of(splits), MultiHead()
    with pytest.raises(SettingsError, match="bytes hold no sample"):
        MemoryBuffer(ReservoirMemory(100), 50, benchmark=benchmark)
    with pytest.raises(SettingsError, match="bytes hold no sample"):
        train(benchmark, [Replay(ReservoirMemory(100))], model=model)
    assert model.seen == []


def test_remembered_samples_are_augmented_anew_by_the_users_own_transforms(splits):
    benchmark = benchmark_of(splits, tasks=False)
    policy = MemoryBuffer(reservoir(), 50, benchmark=benchmark)
    train(benchmark, [ReplayPlugin(mem_size=50, storage_policy=policy)], model=SingleHead(), epochs=1)
    views = torch.stack([policy.buffer[0][0] for _ in range(20)])
    assert len(views.unique(dim=0)) > 5, "RandomCrop moves it"
    plain = policy.buffer.eval()
    assert torch.equal(plain[0][0], plain[0][0])
    own = benchmark.train_stream[0].dataset.eval()
    images = torch.stack([own[index][0] for index in range(len(own))]).flatten(1)
    held = torch.stack([plain[i][0] for i in range(len(plain)) if plain[i][1] in (0, 1)]).flatten(1)
    assert torch.cdist(held, images).min(dim=1).values.max() < 0.02, "8 bits of what the network read"


def test_what_is_kept_is_the_memory_and_no_training_data(splits):
    benchmark = benchmark_of(splits)
    for keeper in (Replay(reservoir()), MemoryBuffer(reservoir(), 50)):
        plugins = [keeper] if isinstance(keeper, Replay) else [ReplayPlugin(mem_size=50, storage_policy=keeper)]
        train(benchmark, plugins, epochs=1)
        decoded = 4 * 64 * len(keeper.memory.recall())
        buffer = keeper.buffer if isinstance(keeper, Replay) else keeper._replay
        assert len(pickle.dumps(buffer)) < keeper.memory.bytes_kept + 2 * decoded + 20_000


def test_float_data_may_leave_the_range_of_earlier_experiences():
    class Features(Dataset):
        def __init__(self, seed):
            generator = torch.Generator().manual_seed(seed)
            self.targets = [index % 4 for index in range(200)]
            scale = torch.tensor([1.0, 2.0, 4.0, 8.0])[self.targets]
            self.values = torch.randn(200, 6, generator=generator) * scale[:, None]

        def __len__(self):
            return 200

        def __getitem__(self, index):
            return self.values[index], self.targets[index]

    benchmark = nc_benchmark(
        Features(0), Features(1), n_experiences=2, task_labels=False, fixed_class_order=[0, 1, 2, 3]
    )
    memory = ReservoirMemory(1_500)
    model = nn.Sequential(nn.Linear(6, 4))
    train(benchmark, [Replay(memory)], model=model, epochs=1)
    low, high = memory.recall().value_range
    values = Features(0).values
    assert (low, high) == (float(values.min()), float(values.max()))


def test_a_benchmark_whose_items_are_no_tensors_is_refused_before_training(splits):
    benchmark = nc_benchmark(*splits, n_experiences=5, task_labels=False)
    with pytest.raises(DataError, match="tensor"):
        MemoryBuffer(reservoir(), 50, benchmark=benchmark)


def test_a_whole_run_takes_the_users_model_optimiser_and_criterion():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh())
            self.out = nn.Linear(32, 10)

        def forward(self, x):
            return self.out(self.body(x))

    calls = []

    class Smoothed(nn.CrossEntropyLoss):
        def forward(self, logits, labels):
            calls.append(len(labels))
            return super().forward(logits, labels)

    settings = ContinualSettings(strategy="er-ace", epochs=2, images_per_class=5, train_limit=600)
    own = {
        "architecture": Mine,
        "optimiser": partial(torch.optim.Adam, lr=0.005),
        "criterion": Smoothed(label_smoothing=0.1),
    }
    result = run_stream(settings, load_data("digits"), **own)
    assert result.matrix.average_accuracy > 0.5
    assert calls
    assert result.matrix == run_stream(settings, load_data("digits"), **own).matrix
