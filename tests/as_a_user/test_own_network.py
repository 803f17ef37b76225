"""Users with networks of their own: whatever they pass as ``architecture`` is used, or refused in one sentence."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders import blobs
from fedcl_distill import (
    Architecture,
    Budget,
    as_network,
    build_method,
    decode,
    encode,
    evaluate,
    list_architectures,
    list_methods,
    register_network,
)
from fedcl_distill.data import LabelledData, Splits, partition
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.evaluation import PGD, find_protocol, kernel_accuracy, real_accuracy
from fedcl_distill.labels import TeacherLabels
from fedcl_distill.methods import known_settings
from fedcl_distill.networks import NETWORKS, NetworkLimits
from fedcl_distill.objectives import NetworkFeatures
from fedcl_distill.selection import Herding, TrainedEmbedding, select
from fedcl_distill.statistics import StatisticsSpec
from fedcl_distill.training import TrainConfig, fit, predict
from quick_methods import quick_settings
from strategies.continual import DistilledMemory
from strategies.continual.regularisation import NetworkEmbedding
from strategies.federated import InProcessGrid, OneShot, make_client_app, run_server
from strategies.federated.client import partition_of

DATA = blobs((1, 8, 8), classes=3, per_class=12)
BRIEF = replace(find_protocol("brief"), train_config=TrainConfig(epochs=2))


class MyNet(nn.Module):
    """As users write them: functions in ``forward``, sizes by hand."""

    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.fc = nn.Linear(2 * width * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class Normed(MyNet):
    """The same with batch norm and dropout."""

    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__(num_classes, width)
        self.bn = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc(self.drop(x.flatten(1)))
        return logits


class LikeTimm(nn.Module):
    """timm's contract, with a head that has no input of its own to be listened to."""

    def __init__(self, in_chans: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 6, 3, stride=2, padding=1)
        self.num_features = 6
        self.classifier = nn.Linear(6, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def forward_features(self, x: Tensor) -> Tensor:
        return F.gelu(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


TAKE_NETWORKS = [name for name in list_methods() if "architecture" in known_settings(name)]
CHEAP = [name for name in TAKE_NETWORKS if name != "it-gan"]
TRAIN_INSIDE = {"mtt", "mtt-pruned", "tesla", "dd", "label-distillation", "rtp"}


def quick(name: str, **settings: Any) -> Any:
    return build_method(name, **{**quick_settings(name), **settings})


def distilled(method: Any, seed: int = 0, data: LabelledData = DATA, **more: Any) -> Any:
    return method.distil(data, 1, seed=seed, budget=Budget(steps=2), **more)


@pytest.fixture
def mine() -> Iterator[str]:
    """A name registered for one test."""
    register_network("mine")(MyNet)
    yield "mine"
    NETWORKS._entries.pop("mine")


@pytest.mark.parametrize("name", TAKE_NETWORKS)
def test_every_method_distils_through_it(name: str, mine: str, untouched_global_rng: None) -> None:
    one, again, other = (distilled(quick(name, architecture=MyNet), seed) for seed in (1, 1, 2))
    assert torch.equal(one.inputs(), again.inputs())
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.inputs(), other.inputs()) or not torch.equal(one.labels, other.labels)
    assert "mine" in str(one.provenance), "its provenance says through which network"
    assert torch.equal(decode(encode(one, bits=32)).inputs(), one.inputs())


@pytest.mark.parametrize("name", CHEAP)
def test_batch_norm_and_dropout_are_handled_or_refused(name: str, untouched_global_rng: None) -> None:
    register_network("normed")(Normed)
    try:
        method = quick(name, architecture="normed:width=6")
        if name in TRAIN_INSIDE or name == "psg":
            with pytest.raises(SettingsError, match="batch norm"):
                distilled(method)
            return
        one, again = distilled(method), distilled(method)
    finally:
        NETWORKS._entries.pop("normed")
    assert torch.equal(one.inputs(), again.inputs())
    assert torch.equal(one.labels, again.labels)
    assert torch.isfinite(one.inputs()).all()


WAYS: dict[str, Any] = {
    "class": MyNet,
    "normed": Normed,
    "partial": partial(MyNet, width=6),
    "lambda": lambda: MyNet(width=5),
    "sequential": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 3)),
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
    "timm": LikeTimm,
    "module": MyNet(),
    "named": as_network(MyNet, embedding="conv2", head="fc", stages=["conv1"]),
    "plain": {"name": "convnet", "width": 4},
    "text": "lenet",
}


@pytest.mark.parametrize("network", WAYS.values(), ids=WAYS)
def test_every_way_to_name_one(network: Any, untouched_global_rng: None) -> None:
    synthetic = distilled(quick("dm", architecture=network))
    first, again = (evaluate(synthetic, DATA, BRIEF, seed=3, architecture=network, networks=1) for _ in range(2))
    assert first.accuracies == again.accuracies
    built = Architecture.of(network).build((1, 8, 8), 3, seed=1)
    other = Architecture.of(network).build((1, 8, 8), 3, seed=2)
    same = Architecture.of(network).build((1, 8, 8), 3, seed=1)
    pairs = list(zip(built.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    assert all(not torch.equal(one, two) for one, _, two in pairs if one.ndim > 1)
    inputs = DATA.inputs()[:4]
    built.eval()
    embedding, logits = built.embed_and_classify(inputs)
    assert torch.equal(logits, built(inputs))
    assert embedding.shape == (4, built.embedding_size)
    assert torch.equal(built.embed(inputs), embedding)
    assert torch.equal(built.stages(inputs)[-1].flatten(1), embedding)
    assert first.architecture == str(Architecture.of(network))


def test_what_is_found_of_a_module() -> None:
    network = Architecture.of(MyNet).build((1, 8, 8), 3, seed=0)
    inputs = DATA.inputs()[:5]
    hidden = F.max_pool2d(F.relu(network.module.conv1(inputs)), 2)
    embedding = F.max_pool2d(F.relu(network.module.conv2(hidden)), 2).flatten(1)
    stages = network.stages(inputs)
    assert len(stages) == 2
    assert torch.equal(stages[0], hidden)
    assert torch.equal(stages[1].flatten(1), embedding)
    assert network.classifier is network.module.fc
    named = as_network(MyNet, embedding="conv1", stages=["conv1"]).build((1, 8, 8), 3, seed=0)
    assert torch.equal(named.embed(inputs), named.module.conv1(inputs).flatten(1))
    assert len(named.stages(inputs)) == 1


def test_a_torchvision_network_at_32_pixels() -> None:
    models = pytest.importorskip("torchvision.models")
    data = blobs((3, 32, 32), classes=2, per_class=2)
    synthetic = build_method("dm", architecture=partial(models.resnet18, num_classes=2), real_batch_per_class=2).distil(
        data, 1, seed=0, budget=Budget(steps=1)
    )
    assert "resnet18:num_classes=2" in str(synthetic.provenance)
    network = Architecture.of(partial(models.resnet18, num_classes=2)).build((3, 32, 32), 2, seed=0)
    assert network.embedding_size == 512
    assert len(network.stages(data.inputs())) == 5
    with pytest.raises(SettingsError, match="tells 1000 classes apart, these data have 2"):
        Architecture.of(models.resnet18).build((3, 32, 32), 2, seed=0)


class FromPython(MyNet):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv1.weight += float(np.random.rand()) + random.random()  # noqa: NPY002


class SeedsItself(MyNet):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()


class OwnGenerator(MyNet):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.fc.weight.copy_(torch.from_numpy(np.random.default_rng().normal(size=self.fc.weight.shape)))


class OwnScheme(MyNet):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.fc.bias, 0.25)
        nn.init.uniform_(self.conv1.weight, 3.0, 4.0)


@pytest.mark.parametrize("network", [FromPython, SeedsItself, OwnGenerator, OwnScheme])
def test_weights_follow_our_seed_whatever_init_does(network: Any, untouched_global_rng: None) -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat(
            [p.flatten() for p in Architecture.of(network).build((1, 8, 8), 3, seed=seed).parameters() if p.ndim > 1]
        )

    assert torch.equal(weights(5), weights(5))
    assert not (weights(5) == weights(6)).any(), "not a single weight is the same"


def test_an_initialisation_of_ones_own_is_kept() -> None:
    module = Architecture.of(OwnScheme).build((1, 8, 8), 3, seed=0).module
    assert (module.conv1.weight >= 3).all()
    assert (module.fc.bias == 0.25).all()


def test_weights_that_no_seed_reaches_are_refused() -> None:
    class Token(MyNet):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.from_numpy(np.random.default_rng().normal(size=3)).float())

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.token

    with pytest.raises(SettingsError, match="'token' cannot be drawn from a seed"):
        Architecture.of(Token).build((1, 8, 8), 3, seed=0)
    with pytest.raises(SettingsError, match="pass the class, or a function"):
        Architecture.of(Token()).build((1, 8, 8), 3, seed=0)


def test_threads_draw_the_same_weights(untouched_global_rng: None) -> None:
    architecture, found = Architecture.of(Normed), {}
    wanted = [architecture.build((1, 8, 8), 3, seed=seed).state_dict() for seed in range(8)]

    def work(seed: int) -> None:
        for _ in range(5):
            network = architecture.build((1, 8, 8), 3, seed=seed)
        fit(network, DATA.inputs(), DATA.labels, TrainConfig(epochs=1, batch_size=8), seed=seed)
        found[seed] = network.state_dict()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        network = architecture.build((1, 8, 8), 3, seed=seed)
        assert all(torch.equal(one, wanted[seed][key]) for key, one in network.state_dict().items())
        fit(network, DATA.inputs(), DATA.labels, TrainConfig(epochs=1, batch_size=8), seed=seed)
        assert all(torch.equal(one, found[seed][key]) for key, one in network.state_dict().items())


def test_training_is_what_a_plain_loop_does() -> None:
    config = TrainConfig(epochs=2, batch_size=36, learning_rate=0.1, schedule="constant", weight_decay=0.0)
    network = Architecture.of(lambda: _without_dropout(Normed())).build((1, 8, 8), 3, seed=0)
    plain = _without_dropout(Normed())
    plain.load_state_dict(network.module.state_dict())
    fit(network, DATA.inputs(), DATA.labels, config, seed=0)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):  # batch norm sees all 36 samples at once, in whatever order
        optimiser.zero_grad()
        F.cross_entropy(plain(DATA.inputs()), DATA.labels).backward()
        optimiser.step()
    for key, one in network.module.state_dict().items():
        assert torch.allclose(one.float(), plain.state_dict()[key].float(), atol=1e-5), key


def _without_dropout(module: Any) -> Any:
    module.drop = nn.Identity()
    return module


def test_a_single_sample_does_not_stop_batch_norm() -> None:
    network = Architecture.of(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    fit(network.build((1, 8, 8), 3, seed=0), DATA.inputs()[:1], DATA.labels[:1], TrainConfig(epochs=2), seed=0)


class Wrong(MyNet):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        ways = {
            "probabilities": lambda: logits.softmax(1),
            "pair": lambda: (logits, logits),
            "flat": logits.flatten,
            "mixing": lambda: logits - logits.mean(0),
            "random": lambda: logits + torch.randn_like(logits),
        }
        return ways[self.how]()


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (partial(Wrong, "probabilities"), "leave the softmax out"),
        (partial(Wrong, "pair"), "got a tuple"),
        (partial(Wrong, "flat"), r"got \(6,\)"),
        (partial(Wrong, "mixing"), "depend on the rest of the batch"),
        (lambda: nn.Sequential(MyNet(), nn.BatchNorm1d(3, track_running_stats=False)), "Expected more than 1 value"),
        (partial(Wrong, "random"), "on chance"),
        (lambda: nn.Linear(7, 3), "cannot read samples of shape 1×8×8"),
        (lambda: 3, "returned a int"),
        (lambda: nn.Flatten(), "no weights"),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), "no nn.Linear"),
        (lambda missing: missing, "missing"),
        (partial(MyNet, num_classes=4), "tells 4 classes apart"),
        (as_network(MyNet, head="fc9"), "no submodule 'fc9'; its own are: conv1, conv2, fc"),
        (lambda: (_ for _ in ()).throw(RuntimeError("no file")), "no file"),
    ],
)
def test_what_is_no_classifier_is_refused_with_the_reason(network: Any, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        evaluate(distilled(build_method("random")), DATA, BRIEF, seed=0, architecture=network, networks=1)


@pytest.mark.parametrize("network", [int, 3, [], "convnett", {"name": "convnet", "width": "wide"}, "convnet:width=0"])
def test_what_names_no_network_is_refused_at_once(network: Any) -> None:
    with pytest.raises(SettingsError):
        build_method("dm", architecture=network)


def test_a_layer_without_second_derivatives_is_named() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 1.0 * gradient

    class NoDouble(MyNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(Once.apply(F.relu(self.conv1(x)))[:, :1])

    with pytest.raises(SettingsError, match=r"dc takes second derivatives.*once_differentiable"):
        distilled(quick("dc", architecture=NoDouble))
    distilled(quick("dm", architecture=NoDouble))


def test_teachers_selection_scores_and_attacks_take_it() -> None:
    labelled = distilled(quick("dm", architecture=MyNet, labels=TeacherLabels(architecture=MyNet)))
    assert labelled.labels.shape == (3, 3)
    assert "MyNet" in str(labelled.provenance)
    embedding = TrainedEmbedding(Normed, TrainConfig(epochs=1))
    assert len(select(DATA, [2, 2, 2], Herding(embedding), seed=0)) == 6
    assert real_accuracy(Splits(DATA, DATA), BRIEF, seed=0, architecture=MyNet) > 0.5
    module = MyNet()
    assert 0 <= kernel_accuracy(labelled, DATA, NetworkFeatures(), network=module) <= 1
    assert len(PGD(steps=1).attack(module, DATA, seed=0).survived) == len(DATA)


def test_frozen_weights_stay_frozen() -> None:
    def build() -> nn.Module:
        module = MyNet()
        module.conv1.requires_grad_(False)
        return module

    network = Architecture.of(build).build((1, 8, 8), 3, seed=0)
    before = network.module.conv1.weight.clone()
    network.requires_grad_(False).requires_grad_(True)
    fit(network, DATA.inputs(), DATA.labels, TrainConfig(epochs=1), seed=0)
    assert torch.equal(network.module.conv1.weight, before)
    assert network.module.fc.weight.requires_grad


def test_icarl_sees_the_embedding_of_any_module() -> None:
    module = MyNet().train()
    embedded = NetworkEmbedding(module).embed(DATA, 0)
    hidden = F.max_pool2d(F.relu(module.conv1(DATA.inputs())), 2)
    wanted = F.normalize(F.max_pool2d(F.relu(module.conv2(hidden)), 2).flatten(1), dim=1)
    assert torch.allclose(embedded, wanted, atol=1e-6)
    assert module.training


def test_memories_keep_what_is_distilled_through_it() -> None:
    memory = DistilledMemory(2000, distiller=quick("dm", architecture=Normed), budget=Budget(steps=1))
    memory.add(DATA)
    assert len(memory.recall().hard_labels.unique()) == 3


def test_registered_names_reach_texts_statistics_and_limits(mine: str) -> None:
    assert "mine" in list_architectures()
    assert Architecture.of(partial(MyNet, width=6)).text == "mine:width=6"
    assert Architecture.parse("mine:width=6") == Architecture.of(partial(MyNet, width=6))
    assert StatisticsSpec(architecture=MyNet).settings()["architecture"] == "mine"
    limits = NetworkLimits(max_parameters=1000)
    limits.check(Architecture.parse("mine"), (1, 8, 8), 3)
    for text in ("mine:width=200", "mine:width=5000", "mine:num_classes=2000000"):
        with pytest.raises(SettingsError):
            limits.check(Architecture.parse(text), (1, 8, 8), 3)


@pytest.mark.parametrize("strategy", ["fedavg", OneShot("random")], ids=["fedavg", "one-shot"])
def test_federations_train_it_by_its_name(strategy: Any) -> None:
    parts = partition(DATA, "iid", 2, seed=0)
    app = make_client_app(lambda context: parts[partition_of(context)])
    register_network("normed")(Normed)
    try:
        with InProcessGrid(app, 2) as grid:
            result = run_server(
                grid, strategy, test=DATA, rounds=1, network=Normed, train=TrainConfig(epochs=3), clients=2
            )
        assert result.rounds[-1].accuracy is not None
        if strategy == "fedavg":
            with InProcessGrid(app, 2) as grid, pytest.raises(SettingsError, match="running statistics"):
                run_server(grid, "scaffold", test=DATA, network=Normed, clients=2)
    finally:
        NETWORKS._entries.pop("normed")
    if strategy == "fedavg":
        with InProcessGrid(app, 2) as grid, pytest.raises(SettingsError, match="register_network"):
            run_server(grid, strategy, test=DATA, network=Normed, clients=2)


def test_what_is_not_registered_has_no_text() -> None:
    with pytest.raises(SettingsError, match="register_network"):
        _ = Architecture.of(Normed).text
    with pytest.raises(SettingsError, match="register_network"):
        StatisticsSpec(architecture=Normed)


def test_no_text_names_code_to_import() -> None:
    for name in ("torch.nn.Linear", f"{MyNet.__module__}.MyNet", "os.system"):
        with pytest.raises(SettingsError, match="unknown network"):
            Architecture.parse(name)


def test_a_checkpoint_belongs_to_its_network(tmp_path: Any) -> None:
    path = tmp_path / "run"

    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    from fedcl_distill.engine import OnProgress

    narrow, wide = (quick("dm", architecture=lambda: MyNet(width=4)), quick("dm", architecture=lambda: MyNet(width=5)))
    distilled(narrow, callbacks=[OnProgress(stop)], checkpoint=path)
    with pytest.raises(CheckpointError, match="another run"):
        distilled(wide, checkpoint=path)
    assert torch.equal(distilled(narrow, checkpoint=path).inputs(), distilled(narrow).inputs())


def test_predictions_are_those_of_the_users_module() -> None:
    network = Architecture.of(Normed).build((1, 8, 8), 3, seed=0)
    fit(network, DATA.inputs(), DATA.labels, TrainConfig(epochs=30, learning_rate=0.05, batch_size=12), seed=0)
    assert torch.equal(predict(network, DATA), network.module.eval()(DATA.inputs()).argmax(1))
    assert float((predict(network, DATA) == DATA.labels).float().mean()) > 0.8


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    (example,) = re.findall(r"<!-- runnable -->\n```python\n(.*?)```", page, flags=re.DOTALL)
    try:
        exec(compile(example, "docs/networks.md", "exec"), {"__name__": "example"})
    finally:
        NETWORKS._entries.pop("mine", None)
    assert "% (1 network, fast)" in capsys.readouterr().out


def test_messages_build_only_what_can_be_counted_without_memory() -> None:
    class Reads(MyNet):
        def __init__(self) -> None:
            super().__init__()
            self.scale = self.conv1.weight.sum().item()

    register_network("reads")(Reads)
    try:
        Architecture.parse("reads").build((1, 8, 8), 3, seed=0)
        with pytest.raises(SettingsError, match="cannot be built"):
            NetworkLimits().check(Architecture.parse("reads"), (1, 8, 8), 3)
    finally:
        NETWORKS._entries.pop("reads")


def test_layers_are_named_where_a_network_is_registered() -> None:
    register_network("early", embedding="conv1", stages=["conv1"])(MyNet)
    try:
        network = Architecture.parse("early:width=3").build((1, 8, 8), 3, seed=0)
        assert network.embedding_size == 3 * 8 * 8
        assert Architecture.of(MyNet).text == "early"
    finally:
        NETWORKS._entries.pop("early")
