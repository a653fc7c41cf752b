"""Learning-rate factors and weight decay, parameter by parameter, as the released code has them."""

import torch
from golden.reference import ENCODER, facts

from rrcm_dist.config.parts import NoiseConfig
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.training.parameter_groups import layer_decay_groups, one_group

OUR_PREFIXES = {"base_model.": "encoder.", "linear_head.": "head."}


def network():
    return FinetuningNetwork(ENCODER, 7, True, NoiseConfig())


def settings(groups, built):
    names = {parameter: name for name, parameter in built.named_parameters()}
    return {names[p]: (group.lr_factor, group.weight_decay) for group in groups for p in group.parameters}


def test_layer_decay_is_the_released_one():
    expected = {}
    for released, (factor, weight_decay) in facts()["layer_decay_0.65"].items():
        prefix = next(p for p in OUR_PREFIXES if released.startswith(p))
        if not released.startswith("base_model.projection_head."):  # fine-tuning has no projector
            expected[OUR_PREFIXES[prefix] + released.removeprefix(prefix)] = (factor, weight_decay)
    built = network()
    ours = settings(layer_decay_groups(built, ENCODER.depth, 0.65, 0.05), built)
    assert ours.keys() == expected.keys() == dict(built.named_parameters()).keys()
    for name, (factor, weight_decay) in expected.items():
        assert abs(ours[name][0] - factor) < 1e-12, name
        assert ours[name][1] == weight_decay, name


def test_each_parameter_is_in_one_group_and_groups_differ():
    built = network()
    groups = layer_decay_groups(built, ENCODER.depth, 0.65, 0.05)
    parameters = [p for group in groups for p in group.parameters]
    assert len(parameters) == len(set(parameters)) == len(list(built.parameters()))
    assert len({(group.lr_factor, group.weight_decay) for group in groups}) == len(groups)


def test_parameters_that_are_not_trained_are_in_no_group():
    built = network()
    built.head.requires_grad_(False)
    for groups in (layer_decay_groups(built, ENCODER.depth, 0.65, 0.0), one_group(built, 0.1)):
        assert not set(built.head.parameters()) & {p for group in groups for p in group.parameters}


def test_pretraining_treats_all_parameters_alike():
    built = network()
    (group,) = one_group(built, 0.03)
    assert (len(group.parameters), group.lr_factor, group.weight_decay) == (len(list(built.parameters())), 1.0, 0.03)
    assert all(isinstance(p, torch.nn.Parameter) for p in group.parameters)
