"""Stripes, necks and classifiers of the parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from adapt.methods.part_heads import PartHeads, stripes

CPU = torch.device("cpu")


def heads(bn_group: int = 0) -> PartHeads:
    made = PartHeads(3, 5, bn_group=bn_group, device=CPU)
    made.set_rows([torch.randn(4, 8)] + [torch.randn(4, 5) for _ in range(3)])
    return made


@pytest.mark.parametrize("height", [1, 2, 3, 8, 12, 16])
@pytest.mark.parametrize("parts", [1, 3, 6])
def test_stripes_are_adaptive_pooling(height: int, parts: int) -> None:
    maps = torch.randn(2, 5, height, 4, generator=torch.Generator().manual_seed(0))
    expected = functional.adaptive_avg_pool2d(maps, (parts, 1))[..., 0].transpose(1, 2)
    torch.testing.assert_close(stripes(maps, parts), expected)


def test_each_part_has_its_own_neck_whose_bias_stays() -> None:
    made = heads()
    names = [name for name, value in made.named_parameters() if value.requires_grad]
    assert names == [f"necks.{p}.weight" for p in range(3)] + [f"rows.{s}" for s in range(4)]
    maps = torch.randn(16, 5, 9, 4, generator=torch.Generator().manual_seed(1)) + 3
    parts = made.embed(stripes(maps, 3))
    torch.testing.assert_close(parts.mean(dim=0), torch.zeros(3, 5), atol=1e-5, rtol=0)
    running = [made.get_buffer(f"necks.{p}.running_mean") for p in range(3)]
    for part, mean in enumerate(running):
        torch.testing.assert_close(mean, 0.1 * stripes(maps, 3)[:, part].mean(dim=0))


def test_necks_normalise_by_groups() -> None:
    maps = torch.randn(8, 5, 9, 4, generator=torch.Generator().manual_seed(1))
    maps[4:] += 5
    parts = heads(bn_group=4).embed(stripes(maps, 3))
    for half in (parts[:4], parts[4:]):
        torch.testing.assert_close(half.mean(dim=0), torch.zeros(3, 5), atol=1e-5, rtol=0)
    assert list(heads(bn_group=4).state_dict()) == list(heads().state_dict())


def test_scores_are_products_or_scaled_cosines() -> None:
    made = heads()
    features = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    weight = made.rows[2]
    torch.testing.assert_close(made.score(features, 2, scale=0.0), features @ weight.t())
    cosine = functional.cosine_similarity(features[:, None], weight[None], dim=2)
    torch.testing.assert_close(made.score(features, 2, scale=30.0), 30.0 * cosine)


def test_new_rows_are_new_parameters_and_necks_stay() -> None:
    made = heads()
    necks = [made.get_parameter(f"necks.{p}.weight") for p in range(3)]
    before = list(made.rows)
    given = torch.randn(6, 8)
    made.set_rows([given] + [torch.randn(6, 5) for _ in range(3)])
    assert all(new is not old for new, old in zip(made.rows, before, strict=True))
    assert all(made.get_parameter(f"necks.{p}.weight") is neck for p, neck in enumerate(necks))
    with torch.no_grad():
        made.rows[0].add_(1)
    assert not torch.equal(made.rows[0], given)
