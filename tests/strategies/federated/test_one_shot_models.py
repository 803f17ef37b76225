"""One average, and one ensemble, against what can be computed without Flower."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from builders import blobs
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import decode, encode, union
from fedcl_distill.training import fit
from federations import data_and_test, quick, run
from plain_federated import parts_of, shares_of, start_of, trained, vector_of
from strategies.federated.learner import Ensemble, ensemble_weights

SOME = {"partition": "dirichlet:0.3", "clients": 3, "local_batch_size": 8}
EPOCHS = {"strategy_settings": {"epochs": 4}}


def test_one_shot_average_is_one_round_of_longer_training():
    settings = quick(**SOME, **EPOCHS, strategy="one-shot-average")
    train, _ = data_and_test()
    longer, parts = quick(**SOME, local_epochs=4), parts_of(settings, train)
    start = start_of(settings, train)
    models = [trained(longer, part, number, 1, start) for number, part in enumerate(parts)]
    expected = sum(share * model for share, model in zip(shares_of(parts), models, strict=True))
    np.testing.assert_allclose(vector_of(run(settings)), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def ensemble_run():
    return run(quick(**SOME, **EPOCHS, strategy="one-shot-ensemble"))


def test_labels_are_the_models_probabilities_by_class_counts(ensemble_run):
    settings = quick(**SOME, **EPOCHS, strategy="one-shot-ensemble", local_epochs=4)
    train, _ = data_and_test()
    parts = parts_of(settings, train)
    request, distil = (
        settings.local.request(settings.seed, settings.architecture),
        settings.distillation.request(settings.seed),
    )
    sets, members = [], []
    for number, part in enumerate(parts):
        seed = derive_seed(settings.seed, "client", 1, number)
        sets.append(decode(encode(distil.distil(part, seed=seed), settings.bits, provenance=False)))
        member = Architecture.parse("mlp:width=8").build((6,), 3, seed=seed)
        fit(member, part.inputs(), part.labels, request.train_config_for(part), seed=seed)
        members.append(member.eval())
    inputs = union(sets).inputs()
    assert torch.equal(ensemble_run.synthetic.inputs(), inputs)
    counts = torch.stack([part.class_counts for part in parts]).double()
    for row, given in zip(inputs, ensemble_run.synthetic.labels, strict=True):
        votes = [
            sum(
                counts[i, c] / counts[:, c].sum() * member(row[None]).softmax(1)[0, c].item()
                for i, member in enumerate(members)
            )
            for c in range(3)
        ]
        np.testing.assert_allclose(given, [vote / sum(votes) for vote in votes], rtol=1e-4, atol=1e-6)


def test_models_and_sets_go_up_and_only_a_question_down(ensemble_run):
    sets = run(quick(**SOME)).rounds[-1]
    models = run(quick(**SOME, strategy="fedavg")).rounds[-1]
    assert ensemble_run.rounds[-1].bytes_up > max(sets.bytes_up, models.bytes_up)
    assert ensemble_run.rounds[-1].bytes_down < models.bytes_down
    assert ensemble_run.accuracy > 0.5 > ensemble_run.rounds[0].accuracy


def test_a_model_that_never_saw_a_class_has_no_say_on_it():
    counts = torch.tensor([[30, 0, 10], [10, 5, 0]])
    by_class = torch.tensor([[0.75, 0.0, 1.0], [0.25, 1.0, 0.0]])
    assert torch.allclose(ensemble_weights(counts, "classes"), by_class)
    assert torch.allclose(ensemble_weights(counts, "samples"), torch.tensor([[40 / 55] * 3, [15 / 55] * 3]))
    assert torch.allclose(ensemble_weights(counts, "uniform"), torch.full((2, 3), 0.5))
    with pytest.raises(SettingsError, match="known: classes, samples, uniform"):
        ensemble_weights(counts, "other")


def test_probabilities_sum_to_one_even_where_no_model_knows():
    data = blobs((6,), classes=3)
    network = Architecture.parse("mlp:width=4").build((6,), 3, seed=0)
    broken = Architecture.parse("mlp:width=4").build((6,), 3, seed=0)
    torch.nn.init.constant_(broken.classifier.weight, float("nan"))
    alone = Ensemble([network], torch.ones(1, 3)).probabilities(data.inputs())
    beside = Ensemble([network, broken], torch.full((2, 3), 0.5)).probabilities(data.inputs())
    assert torch.allclose(alone, beside)
    nobody = Ensemble([broken], torch.ones(1, 3)).probabilities(data.inputs())
    assert torch.allclose(nobody, torch.full_like(nobody, 1 / 3))


def _counts(change):
    def tamper(reply):
        reply.content["metrics"]["class-counts"] = change(list(reply.content["metrics"]["class-counts"]))
        return reply

    return tamper


def _without_counts(reply):
    del reply.content["metrics"]["class-counts"]
    return reply


def _overflowing_model(reply):
    arrays = reply.content["arrays"].items()
    huge = {name: Array(np.full_like(array.numpy(), 3e38)) for name, array in arrays}
    reply.content["arrays"] = ArrayRecord(huge)
    return reply


def _no_model(reply):
    del reply.content["arrays"]
    return reply


LIES = [
    (_counts(lambda counts: [count + 1000 for count in counts]), "class counts add up to"),
    (_counts(lambda counts: [counts[0] - 10**6, counts[1] + 10**6, counts[2]]), "no list of whole numbers"),
    (_counts(lambda counts: [float(count) for count in counts]), "no list of whole numbers"),
    (_counts(lambda counts: [*counts, 0]), "counts 4 classes, expected 3"),
    (_counts(lambda counts: [sum(counts)]), "counts 1 classes, expected 3"),
    (_without_counts, "counts 0 classes, expected 3"),
    (_overflowing_model, "not finite"),
    (_no_model, "no arrays 'arrays'"),
]


@pytest.mark.parametrize(("tamper", "reason"), LIES)
def test_lies_are_turned_away(tamper, reason):
    settings = quick(**SOME, strategy_settings={"epochs": 1}, strategy="one-shot-ensemble")
    result = run(settings, tampers={1: tamper})
    (rejection,) = result.rejections
    assert reason in rejection.reason
    assert torch.equal(vector_of(result), vector_of(run(settings, unavailable=[1])))


def test_samples_of_a_class_that_the_set_does_not_show_are_not_believed():
    one_class = {"partition": "classes:1", "clients": 3, "strategy": "one-shot-ensemble"}
    settings = quick(**one_class, strategy_settings={"epochs": 1})

    def claims_the_next_class_too(reply):
        counts = list(reply.content["metrics"]["class-counts"])
        own = int(np.argmax(counts))
        counts[own], counts[(own + 1) % 3] = 1, counts[own] - 1
        reply.content["metrics"]["class-counts"] = counts
        return reply

    honest, lied = run(settings), run(settings, tampers={1: claims_the_next_class_too})
    assert lied.rejections == ()
    assert torch.equal(honest.synthetic.labels, lied.synthetic.labels)


@pytest.mark.parametrize("strategy", ["one-shot-average", "one-shot-ensemble"])
def test_they_have_one_round(strategy):
    with pytest.raises(SettingsError, match=f"{strategy} has one round"):
        run(quick(strategy=strategy, rounds=2))
