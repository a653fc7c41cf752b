import pytest

from benchmarks.scaling_model import Compute, Network, predict
from rrcm_dist.config.load import load_recipe

NETWORK = Network(link_gb_s=200, network_gb_s=25, link_latency=4e-6, network_latency=12e-6)
COMPUTE = Compute(fixed_seconds=0.02, flops_per_second=1e14, loss_flops_per_second=1e13)


def prediction(gpus, *changes, network=NETWORK, reduce_overlap=0.0):
    recipe = load_recipe("imagenet/pretrain-b", ["training.micro_batch=null", *changes], kind="pretrain")
    return predict(recipe, gpus, COMPUTE, network, reduce_overlap)


def test_one_gpu_waits_for_no_message():
    assert prediction(1).communication == prediction(1).hidden == 0.0


def test_a_fixed_batch_on_twice_the_gpus_halves_the_arithmetic_and_nothing_else():
    few, many = prediction(32), prediction(64)
    assert many.arithmetic == pytest.approx(few.arithmetic / 2)
    assert many.fixed == few.fixed
    assert many.communication > few.communication


def test_a_large_reduction_takes_the_bytes_over_the_nodes_links_together():
    seconds = NETWORK.all_reduce(sent=20e9, gpus=64)
    assert seconds == pytest.approx(20e9 / 200e9, rel=0.01)
    slow = Network(link_gb_s=200, network_gb_s=2.5, link_latency=4e-6, network_latency=12e-6)
    assert slow.all_reduce(sent=20e9, gpus=64) == pytest.approx(20e9 / 20e9, rel=0.01)


def test_a_small_reduction_over_many_gpus_goes_up_and_down_a_tree():
    assert NETWORK.all_reduce(sent=0, gpus=512) == pytest.approx(2 * (7 * 4e-6 + 6 * 12e-6))
    assert NETWORK.ring(sent=0, gpus=512) == pytest.approx(511 * 12e-6)


def test_overlap_hides_the_reduction_only_as_far_as_the_backward_pass_lasts():
    apart, overlapped = prediction(512), prediction(512, reduce_overlap=1.0)
    assert overlapped.exposed["gradients"] == 0.0
    assert overlapped.hidden + overlapped.communication == pytest.approx(apart.hidden + apart.communication)
    slow = Network(link_gb_s=1, network_gb_s=0.1, link_latency=4e-6, network_latency=12e-6)
    assert prediction(512, network=slow, reduce_overlap=1.0).exposed["gradients"] > 0.0
