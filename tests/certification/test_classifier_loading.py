"""Classifiers by `package.module:function`: found, called, hashed; every mistake told in words."""

import pytest
import torch
from certification_models import small, small_scaled
from safetensors.torch import save_file
from torch import nn

from rrcm_dist.certification.workers.classifiers import call_function, check_checkpoint, identity_hash, weights_hash
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import ClassifierConfig
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.models.checkpoint_files import OwnMetadata


def test_a_function_is_called_with_sigma_if_it_takes_it():
    assert weights_hash(call_function("certification_models:small", 0.5)) == weights_hash(small())
    assert weights_hash(call_function("certification_models:small_scaled", 0.5)) == weights_hash(small_scaled(0.5))
    assert weights_hash(small_scaled(0.5)) != weights_hash(small_scaled(0.25))


def test_the_current_directory_can_be_imported_from(tmp_path, monkeypatch):
    (tmp_path / "my_own_network.py").write_text("import torch\ndef net():\n    return torch.nn.Linear(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(call_function("my_own_network:net", 0.5), nn.Linear)


@pytest.mark.parametrize(("name", "error", "message"), [
    ("no_colon", InvalidInput, "package.module:function"),
    ("no_such_package.module:f", InvalidInput, "no module no_such_package"),
    ("certification_models:absent", InvalidInput, "no function absent; it has .*small"),
    ("certification_models:no_module", InvalidInput, "returned str"),
    ("certification_models:broken", RunFailure, r"ValueError: no such file \(.*certification_models.py, line \d+\)"),
])  # fmt: skip
def test_mistakes_are_told(name, error, message):
    with pytest.raises(error, match=message):
        call_function(name, 0.5)


def test_a_module_that_lacks_a_dependency_says_which(tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import something_not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="needs_something needs the module something_not_installed"):
        call_function("needs_something:net", 0.5)


def test_the_hash_sees_every_byte_name_and_type():
    module = nn.Linear(2, 2)
    before = weights_hash(module)
    assert weights_hash(module) == before
    assert weights_hash(nn.Linear(2, 2).to(torch.bfloat16)) != before
    with torch.no_grad():
        module.weight[0, 0] = torch.nextafter(module.weight[0, 0], torch.tensor(torch.inf))
    assert weights_hash(module) != before
    assert weights_hash(nn.Sequential(module)) != weights_hash(module)
    assert weights_hash(nn.BatchNorm2d(3)) != weights_hash(nn.BatchNorm2d(4))


class Hidden(nn.Module):
    """A network in a closure: its state dict is empty."""

    def __init__(self, network):
        super().__init__()
        self.call = lambda x: network(x)

    def forward(self, x):
        return self.call(x)


def test_networks_out_of_sight_are_told_apart_by_what_they_answer_and_by_their_function():
    def identity(module, source="my_nets:lam"):
        return identity_hash(module, source, 8, torch.device("cpu"))

    one, other = Hidden(small().eval()), Hidden(small_scaled(0.5).eval())
    assert weights_hash(one) == weights_hash(other)
    assert identity(one) == identity(Hidden(small().eval()))
    assert identity(one) != identity(other)
    assert identity(one) != identity(one, "my_nets:other")


def test_networks_with_a_state_dict_are_known_by_it_alone():
    assert identity_hash(small(), "my_nets:net", 8, torch.device("cpu")) == weights_hash(small())


def test_a_checkpoint_for_other_images_or_classes_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    recipe = load_recipe("cifar10/finetune-b-sigma0.5", kind="finetune")
    save_file({"a": torch.zeros(1)}, file, OwnMetadata("model", recipe).as_strings())
    config = ClassifierConfig(sigma=0.5, checkpoint=str(file))
    check_checkpoint(config, 32, 10)
    with pytest.raises(InvalidInput, match=r"model\.safetensors was trained at image_size 32, not 64"):
        check_checkpoint(config, 64, 10)
    with pytest.raises(InvalidInput, match=r"model\.safetensors tells 10 classes apart, and the dataset has 100"):
        check_checkpoint(config, 32, 100)
