"""A researcher's own objective, method, labels and selection: in Python, by name, on Flower clients, in a memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill import (
    Budget,
    Engine,
    MatchContext,
    Objective,
    SyntheticSet,
    build_method,
    list_methods,
    register_method,
    register_objective,
    register_selection,
)
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.engine import quantisation_aware
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import LearnedLabels
from fedcl_distill.methods import METHODS, known_settings, psg
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import OBJECTIVES
from fedcl_distill.selection import SELECTIONS
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic import decode, encode
from federations import quick, run
from strategies.continual.distilled_memory import DistilledMemory

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin" / "fedcl_distill_example.py"
MLP = Architecture("mlp", {"width": 8})


class Medians(Objective[dict[int, Tensor]]):
    """The median embedding of each class, as a user writes it: no settings, no registration."""

    def target(self, view: MatchContext, real: RealSampler) -> dict[int, Tensor]:
        inputs, classes = real.draw(32, view.seed)
        with torch.no_grad():
            embeddings = view.network.embed(view.augment(inputs, classes))
        return {label: embeddings[classes == label].median(0).values for label in classes.unique().tolist()}

    def losses(self, view: MatchContext, target: dict[int, Tensor], synthetic: SyntheticBatch) -> Iterator[Tensor]:
        embeddings = view.network.embed(view.augment(synthetic.inputs, synthetic.classes))
        distances = [(embeddings[synthetic.classes == label].mean(0) - one).square() for label, one in target.items()]
        yield torch.stack(distances).sum()


@pytest.fixture
def registered() -> Iterator[None]:
    """What a module of the researcher's does when it is imported."""

    @register_objective("medians")
    @settings
    class Registered(Medians):
        batch: Count = 32

    @register_method("medians", choose_when="classes have outliers")
    def medians(*, batch: Count = 32, steps: Count = 3) -> Engine:
        return Engine(Registered(batch), FreshRandom(MLP), budget=Budget(steps=steps), name="medians")

    @register_selection("last")
    @settings
    class Last:
        def embed(self, real: Any, seed: int) -> Tensor:
            return torch.arange(len(real))[:, None].float()

        def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
            return embeddings[:, 0].argsort(descending=True)[:count]

    yield
    METHODS.unregister("medians")
    OBJECTIVES.unregister("medians")
    SELECTIONS.unregister("last")


def distilled(method: Any, **more: Any) -> SyntheticSet:
    return method.distil(blobs(), 2, seed=0, budget=Budget(steps=5), **more)


def test_an_objective_alone_makes_a_method() -> None:
    start, end = (Engine(Medians()).distil(blobs(), 2, seed=0, budget=Budget(steps=n)) for n in (0, 5))
    assert not torch.equal(start.inputs(), end.inputs())
    assert str(end.provenance["objective"]).endswith("Medians")
    assert torch.equal(decode(encode(end, 32)).inputs(), end.inputs())
    with pytest.raises(SettingsError, match="Medians goes by classes alone"):
        Engine(Medians(), labels=LearnedLabels())


def test_a_registered_method_works_by_name(registered: None) -> None:
    assert "medians" in list_methods()
    assert known_settings("medians") == ["batch", "steps"]
    by_name, by_text = build_method("medians", batch=8), build_method("medians:batch=8")
    assert by_name == by_text == build_method({"name": "medians", "batch": 8}) == build_method(by_name)
    assert distilled(by_name).provenance["objective"] == {"name": "medians", "batch": 8}
    with pytest.raises(SettingsError, match="medians: batch must be a whole number at least 1, got 0"):
        build_method("medians", batch=0)
    with pytest.raises(SettingsError, match="unknown setting 'bacth'; did you mean 'batch'"):
        build_method("medians", bacth=1)
    with pytest.raises(SettingsError, match="did you mean 'medians'"):
        build_method("median")
    with pytest.raises(SettingsError, match="has its settings already"):
        build_method(by_name, batch=3)


def test_a_registered_selection_chooses_first_samples(registered: None) -> None:
    data = blobs()
    synthetic = build_method("dm", architecture=MLP, init="last").distil(data, 1, seed=0, budget=Budget(steps=0))
    lasts = torch.stack([data.inputs(data.indices_of(label)[-1:])[0] for label in range(data.num_classes)])
    assert torch.equal(synthetic.inputs(), lasts)


def test_flower_clients_build_it_by_name(registered: None) -> None:
    result = run(quick(method="medians", method_settings={"batch": 4}, distil_steps=2), shape=(1, 8, 8))
    assert result.synthetic is not None
    assert len(result.synthetic) == 4 * 2 * 3
    with pytest.raises(SettingsError, match="did you mean 'medians'"):
        run(quick(method="mediant"))


def test_a_memory_takes_it(registered: None) -> None:
    memory = DistilledMemory(4000, distiller=build_method("medians"))
    memory.add(blobs())
    held = memory.recall()
    assert held is not None
    assert held.class_counts.min() > 0
    assert memory.bytes_kept <= 4000


def test_rounding_at_every_step_works_or_says_why_not(registered: None) -> None:
    assert distilled(quantisation_aware(build_method("medians"), 4)).provenance["bits"] == 4
    private = quantisation_aware(psg(architecture=MLP, noise_seed=0, epsilon=None), 4)
    assert distilled(private).provenance["bits"] == 4

    class Foreign:
        name = "foreign"

    with pytest.raises(SettingsError, match="foreign cannot take the rounding"):
        quantisation_aware(Foreign(), 4)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="bits"):
        quantisation_aware(build_method("random"), 5)


def test_a_file_named_in_the_environment_is_known_to_every_process(tmp_path: Path) -> None:
    code = (
        "import json; from fedcl_distill import build_method;"
        "from fedcl_distill.registry import describe;"
        "found = build_method('mmd', architecture='mixer:width=8', augmentation='jitter', bandwidth=0.25);"
        "from fedcl_distill.data import load, partition;"
        "sizes = [len(part) for part in partition(load('digits').train, 'geometric:ratio=3', 2, seed=0)];"
        "print(json.dumps([describe(found.objective), describe(found.augmentation), sizes[1] / sum(sizes)]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FEDCL_DISTILL_PLUGINS": str(PLUGIN)}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == [{"name": "mmd", "bandwidth": 0.25}, "jitter", pytest.approx(0.75, abs=0.01)]


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FEDCL_DISTILL_PLUGINS": "no_such_module"}
    command = [sys.executable, "-c", "import fedcl_distill; fedcl_distill.list_methods()"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert "FEDCL_DISTILL_PLUGINS names 'no_such_module', which cannot be imported" in said.stderr
