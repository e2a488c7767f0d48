"""How large the volume is asked to be."""

from dataclasses import replace

import pytest

from gridsweep.executors.kubernetes.manifests.bundle import cluster_of
from gridsweep.executors.kubernetes.manifests.storage import (
    GIB,
    KEPT_CHECKPOINTS,
    lora_parameters,
    parameters,
    volume_claim,
    volume_size,
)
from gridsweep.sweep.experiments import Model
from gridsweep.sweep.rungs import Proposals, Repeats
from gridsweep.sweep.stints import Device


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", 7.62),
        ("Qwen/Qwen2.5-0.5B", 0.49),
        ("google/gemma-7b-it", 8.54),
        ("meta-llama/Llama-3.1-70B-Instruct", 70.6),
        ("Qwen/Qwen3-30B-A3B", 30.5),
        ("smollm2-135m-instruct", 0.135),
    ],
)
def test_a_base_has_no_more_weights_than_its_name_is_taken_for(model, billions):
    found, known = parameters(model)
    assert known
    assert billions * 1e9 <= found <= billions * 1.5e9


@pytest.mark.parametrize("model", ["microsoft/phi-4", "my-model", "v2.5B7-x/name"])
def test_a_name_that_does_not_tell_is_taken_for_8b(model):
    assert parameters(model) == (1e10, False)


@pytest.mark.parametrize(
    ("model", "per_rank"),
    [  # the sum over all layers and the seven projections of inputs and outputs, from the models' configurations
        ("Qwen2.5-0.5B", 549_888),
        ("Qwen2.5-1.5B", 1_154_048),
        ("Qwen2.5-7B", 2_523_136),
        ("Llama-3.1-8B", 2_621_440),
        ("Qwen2.5-72B", 13_158_400),
    ],
)
def test_an_adapter_is_taken_for_at_least_its_size(model, per_rank):
    assert per_rank * 16 <= lora_parameters(model, 16) <= per_rank * 16 * 1.5


def test_the_published_volume_holds_all_of_it(published):
    size = volume_size(published, loop=False)
    ranks = sum(e.params.r for e in published.experiments)
    real = 15.2e9 + ranks * 2_523_136 * (4 + KEPT_CHECKPOINTS * 12) + 2 * 32 * 2_523_136 * 12
    assert size.bytes > real * 1.2
    assert size.quantity == f"{-int(-size.bytes // GIB)}Gi"
    claim = volume_claim(published, cluster_of(published, "compute-gardener"), loop=False)
    assert claim["spec"]["resources"]["requests"]["storage"] == size.quantity
    assert "checkpoints" in claim["metadata"]["annotations"]["gridsweep.io/size"]


def test_the_loop_needs_less_since_it_removes_checkpoints(published):
    assert volume_size(published, loop=True).bytes < volume_size(published, loop=False).bytes


def test_more_devices_and_larger_bases_need_more(published):
    before = volume_size(published, loop=True).bytes
    assert volume_size(replace(published, devices=tuple(Device(f"d{i}") for i in range(8))), loop=True).bytes > before
    assert volume_size(replace(published, model=Model("Qwen/Qwen2.5-32B")), loop=True).bytes > before


def test_a_pack_keeps_the_checkpoints_of_all_its_members_and_whoever_joins_has_an_adapter(published):
    before = volume_size(published, loop=True).bytes
    packed = volume_size(replace(published, pack=21), loop=True).bytes
    assert packed > before
    joined = replace(published, pack=21, repeats=Repeats(3, 3), propose=Proposals(most=2))
    assert volume_size(joined, loop=True).bytes - packed >= 8 * 2 * 4 * lora_parameters(published.model.id, 32)


def test_a_size_that_is_given_stays(published):
    claim = volume_claim(published, replace(cluster_of(published, "compute-gardener"), volume_size="1Ti"), loop=False)
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Ti"
    assert "annotations" not in claim["metadata"]
