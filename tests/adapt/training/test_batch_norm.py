"""Virtual batch-norm groups and re-estimation against literal computations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from adapt.training.batch_norm import (
    GroupedBatchNorm,
    group_batch_norms,
    reestimate,
    running_statistics,
    seeing_both,
    ungroup,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4),
    )  # fmt: skip


def batch(count: int = 12) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_group_is_normalised_as_a_batch_of_its_own() -> None:
    plain = nn.BatchNorm2d(3)
    torch.nn.init.uniform_(plain.weight)
    torch.nn.init.uniform_(plain.bias)
    replicas = [copy.deepcopy(plain) for _ in range(3)]
    grouped = GroupedBatchNorm(plain, 4)
    inputs = batch()
    outputs = grouped(inputs)
    expected = torch.cat([norm(part) for norm, part in zip(replicas, inputs.split(4), strict=True)])
    torch.testing.assert_close(outputs, expected)
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(norm, name) for norm in replicas]).mean(dim=0)
        torch.testing.assert_close(getattr(grouped, name), mean)


def test_gradients_equal_those_of_replicas() -> None:
    grouped, replicas = network(), network()
    group_batch_norms(grouped, 4)
    grouped(batch()).square().sum().backward()
    for part in batch().split(4):
        replicas(part).square().sum().backward()
    for ours, theirs in zip(grouped.parameters(), replicas.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_one_group_of_the_whole_batch_is_plain_batch_norm() -> None:
    grouped, plain = network(), network()
    group_batch_norms(grouped, 12)
    torch.testing.assert_close(grouped(batch()), plain(batch()))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(grouped.state_dict()[name], value)


def test_grouping_is_undone_with_weights_and_statistics() -> None:
    model = network()
    names = list(model.state_dict())
    assert group_batch_norms(model, 4) == 3
    assert list(model.state_dict()) == names
    model(batch())
    model.eval()
    before = model(batch())
    ungroup(model)
    assert not any(isinstance(module, GroupedBatchNorm) for module in model.modules())
    torch.testing.assert_close(model(batch()), before)


def test_an_activation_fused_into_the_norm_is_kept() -> None:
    timm_layers = pytest.importorskip("timm.layers")
    fused = nn.Sequential(timm_layers.BatchNormAct2d(3))
    grouped = copy.deepcopy(fused)
    group_batch_norms(grouped, 12)
    outputs = grouped(batch())
    assert float(outputs.detach().min()) == 0.0
    torch.testing.assert_close(outputs, fused(batch()))


def test_reestimation_is_the_average_over_batches() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    parts = batch().split(4)
    assert reestimate(model, parts) == 3
    mean = torch.stack([part.mean(dim=(0, 2, 3)) for part in parts]).mean(dim=0)
    variance = torch.stack([part.var(dim=(0, 2, 3)) for part in parts]).mean(dim=0)
    torch.testing.assert_close(model[0].running_mean, mean)
    torch.testing.assert_close(model[0].running_var, variance)
    assert model[0].momentum == 0.1
    assert model.training


def test_reestimation_with_groups_averages_their_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    group_batch_norms(model, 2)
    reestimate(model, [batch()])
    ungroup(model)
    expected = torch.stack([part.var(dim=(0, 2, 3)) for part in batch().split(2)]).mean(dim=0)
    torch.testing.assert_close(model[0].running_var, expected)


def test_nothing_to_average_changes_nothing() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    assert reestimate(model, [batch(1)]) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("group", [0, 3])
def test_each_domain_has_its_own_norms(group: int) -> None:
    model = network()
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    assert group_batch_norms(model, group, domains=True) == 3
    domains = [network(), network()]
    for domain in domains:
        group_batch_norms(domain, group)
    halves = batch(12).split(6)
    with seeing_both(model):
        outputs = model(batch(12))
    outputs.square().sum().backward()
    for domain, part, output in zip(domains, halves, outputs.split(6), strict=True):
        expected = domain(part)
        torch.testing.assert_close(output, expected)
        expected.square().sum().backward()
    source, target = domains
    ours = dict(model.named_parameters())
    for name, parameter in target.named_parameters():
        other = source.get_parameter(name)
        assert parameter.grad is not None
        assert other.grad is not None
        if name.partition(".")[0] in {"0", "3"}:
            gradient = parameter.grad + other.grad
        else:
            gradient = parameter.grad
            own = ours[name.replace(".", ".source.")]
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours[name].grad, gradient, rtol=1e-4, atol=1e-4)
    # What is exported is the target's, under the names that the plain network has.
    torch.testing.assert_close(model.eval()(halves[1]), target.eval()(halves[1]))
    assert len(list(running_statistics(model))) == 12
    ungroup(model)
    assert model.state_dict().keys() == plain.keys()
    for name, value in target.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    torch.testing.assert_close(model(halves[1]), target(halves[1]))


def test_frozen_norms_of_two_domains_use_their_own_running_statistics() -> None:
    model = network()
    group_batch_norms(model, 0, domains=True)
    with seeing_both(model):
        model(batch(12))
    model.eval()
    alone = model(batch(12)[6:])
    with seeing_both(model):
        outputs = model(batch(12))
    torch.testing.assert_close(outputs[6:], alone)
    assert not torch.allclose(outputs[:6], model(batch(12)[:6]))
