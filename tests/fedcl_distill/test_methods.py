"""Truth: the paper's settings, and objects built by hand."""

import pytest

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.engine import SGD, Engine, FromReal, Noise
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import all_methods, build_method, dm
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import DistributionMatching
from fedcl_distill.selection import Herding


def test_dm_has_the_settings_of_its_paper() -> None:
    engine = build_method("dm")
    assert isinstance(engine, Engine)
    settings = engine.settings()
    assert engine.optimiser == SGD(learning_rate=1.0, momentum=0.5)
    assert engine.objective == DistributionMatching(real_batch_per_class=256)
    assert engine.steps_per_network == 1
    assert (settings["method"], settings["init"]) == ("dm", "random")
    assert engine.budget.steps == 20_000


def test_names_mean_the_same_as_objects() -> None:
    by_name = dm(architecture="convnet:width=16", init="herding", augmentation="none")
    by_object = dm(
        architecture=Architecture("convnet", {"width": 16}),
        init=FromReal(Herding()),
        augmentation=NoAugmentation(),
    )
    assert by_name == by_object
    assert by_name.networks == FreshRandom(Architecture("convnet", {"width": 16}))
    assert dm(init="noise").init == Noise()


@pytest.mark.parametrize("settings", [{"init": "zeros"}, {"augmentation": "mixup"}, {"architecture": "vgg"}])
def test_unknown_names_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="unknown"):
        dm(**settings)  # type: ignore[arg-type]


def test_every_method_says_what_it_is() -> None:
    for method in all_methods():
        assert build_method(method.name).name == method.name
        assert method.family
        assert method.choose_when
