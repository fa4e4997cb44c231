"""Adapters: of a network that is trained in part, only that part is saved, and loaded into the same rest."""

from __future__ import annotations

import copy
import importlib.util
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt.deep import TorchEstimator, TorchModel
from sparkopt.deep.partial_weights import frozen_digest, load_weights, trained_weights
from sparkopt.errors import DataError, IncompatibleError, ParameterError
from sparkopt.launch.checkpoints import CheckpointFolder

WIDE = 64


class Adapted(nn.Module):
    """A wide network that stays as it is, a low-rank adapter (LoRA) of it, and a norm with running statistics.

    Parameters
    ----------
    base : int
        Seed of the wide network, which stands for the weights of a model that was trained by others.
    """

    def __init__(self, base: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(base)
        self.wide, self.norm = nn.Linear(4, WIDE), nn.BatchNorm1d(WIDE)
        with torch.no_grad():
            self.wide.weight.copy_(torch.randn(WIDE, 4, generator=generator))
            self.wide.bias.zero_()
        self.wide.requires_grad_(False)
        self.down, self.up, self.out = nn.Linear(4, 2, bias=False), nn.Linear(2, WIDE, bias=False), nn.Linear(WIDE, 1)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.wide(x) + self.up(self.down(x)))))


class Unlike(Adapted):
    """Another rest in each process, and with each call."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.normal_(self.wide.weight)


X = np.random.default_rng(1).normal(size=(80, 4)).astype(np.float32)
DATA = pa.table({"features": list(X), "label": X[:, 0] * X[:, 1]})


def estimator(**options):
    given = dict(module=Adapted, epochs=3, batchSize=16, launcher="local", seed=2, savedWeights="trainable")
    return TorchEstimator(**{**given, **options})


def names(model):
    header = json.loads(model.weights[8 : 8 + int.from_bytes(model.weights[:8], "little")])
    return set(header) - {"__metadata__"}


def test_what_is_not_trained_is_not_saved(no_session, tmp_path):
    whole, part = estimator(savedWeights="all").fit(DATA), estimator().fit(DATA)
    assert names(whole) - names(part) == {"wide.weight", "wide.bias"}
    assert len(whole.weights) - len(part.weights) > 4 * WIDE * 4
    for one, two in zip(whole.module.state_dict().values(), part.module.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    part.save(str(tmp_path / "model"))
    found = TorchModel.load(str(tmp_path / "model"))
    assert found.transform(DATA).equals(whole.transform(DATA))


def test_another_rest_is_refused(no_session, tmp_path):
    estimator().fit(DATA).save(str(tmp_path / "model"))
    other = TorchModel.load(str(tmp_path / "model"), module=lambda: Adapted(base=1))
    with pytest.raises(
        DataError, match=r"the others \(wide.weight, wide.bias\) are not those that they were trained with"
    ):
        other.transform(DATA)
    with pytest.raises(DataError, match="the others .wide.weight"):
        estimator(module=lambda: Adapted(base=1), initialModel=estimator().fit(DATA)).fit(DATA)


def test_a_rest_that_is_drawn_anew_is_refused_before_the_first_step():
    steps = []
    with pytest.raises((DataError, ParameterError), match="are not those that they were trained with"):
        estimator(module=Unlike, callbacks=[steps.append]).fit(DATA)
    assert not steps
    assert estimator(module=Unlike, savedWeights="all", epochs=1).fit(DATA).weights


def test_training_goes_on_from_what_was_trained(no_session):
    first = estimator().fit(DATA)
    found = estimator(initialModel=first, epochs=0).fit(DATA)
    assert found.weights == first.weights


@pytest.mark.parametrize("patience", [0, 2])
def test_checkpoints_hold_what_is_trained_and_belong_to_the_rest(tmp_path, patience):
    options = dict(checkpointDir=str(tmp_path / "checkpoints"), patience=patience)
    estimator(**options, epochs=2).fit(DATA)
    folder = CheckpointFolder(options["checkpointDir"])
    assert "wide.weight" not in folder.load(folder.latest()).model
    resumed = estimator(**options).fit(DATA)
    assert resumed.summary.receipt is not None
    assert resumed.weights == estimator(patience=patience).fit(DATA).weights
    with pytest.raises(IncompatibleError, match="frozen"):
        estimator(**options, module=lambda: Adapted(base=1), epochs=4).fit(DATA)


TYPES = [torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.float16]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_weights_of_any_type_are_known_again(kind):
    module = nn.ParameterDict(
        {"kept": nn.Parameter(torch.arange(6).to(kind).reshape(2, 3), False), "own": torch.zeros(2)}
    )
    state = copy.deepcopy(trained_weights(module, frozen_digest(module)))
    load_weights(module, state)
    with torch.no_grad():
        module["kept"][1, 2] += 1
    with pytest.raises(DataError, match="the others .kept. are not those"):
        load_weights(module, state)


def test_a_network_that_is_trained_whole_is_saved_whole():
    module = nn.Linear(2, 1)
    assert frozen_digest(module) is None
    assert trained_weights(module, None).keys() == module.state_dict().keys()


def test_tied_weights_are_left_out_under_both_names():
    module = nn.ModuleDict(
        {"one": nn.Linear(2, 2, bias=False), "two": nn.Linear(2, 2, bias=False), "own": nn.Linear(2, 1)}
    )
    module["two"].weight = module["one"].weight.requires_grad_(False)
    assert "two.weight" not in trained_weights(module, frozen_digest(module))


def with_lora():
    """A perceptron whose first layer the library peft adapts."""
    import peft

    module = nn.Sequential(nn.Linear(4, WIDE), nn.ReLU(), nn.Linear(WIDE, 1))
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return peft.get_peft_model(module, peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["2"]))


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.filterwarnings("ignore")  # of libraries that it imports
def test_adapters_of_a_library():
    part, whole = (estimator(module=with_lora, savedWeights=saved).fit(DATA) for saved in ("trainable", "all"))
    assert all("lora" in name or "modules_to_save" in name or name == "sparkopt.frozen" for name in names(part))
    assert part.transform(DATA).equals(whole.transform(DATA))
    assert len(part.weights) < len(whole.weights)
