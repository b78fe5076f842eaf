"""Pooling, neck and backbones by name."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet50

from adapt.backbones.build import build_embedder
from adapt.backbones.pooling import GeneralisedMeanPooling
from resight.errors import InvalidArgument


def test_generalised_mean_follows_its_equation() -> None:
    maps = torch.rand(2, 5, 3, 4) + 0.1
    for p in (1.0, 3.0, 40.0):
        expected = torch.stack(
            [torch.stack([(c.double() ** p).mean() ** (1 / p) for c in image]) for image in maps]
        )
        assert torch.allclose(GeneralisedMeanPooling(p)(maps).double(), expected, rtol=1e-4)
    assert torch.allclose(GeneralisedMeanPooling(1.0)(maps), maps.mean(dim=(2, 3)))


def test_generalised_mean_learns_its_exponent_and_survives_zeros() -> None:
    pooling = GeneralisedMeanPooling()
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooling(maps).sum().backward()
    assert maps.grad is not None
    assert pooling.p.grad is not None
    assert torch.isfinite(maps.grad).all()
    assert torch.isfinite(pooling.p.grad).all()
    assert pooling.p.item() == 3.0


def test_neck_has_a_frozen_bias() -> None:
    embedder = build_embedder("osnet_x0_25", init="random", neck="bn", seed=0)
    assert not embedder.neck.bias.requires_grad
    assert embedder.neck.weight.requires_grad
    assert not embedder.neck.bias.any()


@pytest.mark.parametrize(
    ("name", "options", "dim"),
    [
        ("osnet_x0_25", {}, 512),
        ("osnet_ain_x0_25", {"pooling": "gem"}, 512),
        ("timm:resnet18", {"pooling": "gem"}, 512),
        ("timm:resnet50", {}, 2048),
        ("efficientnet_lite0", {"image_size": (128, 64)}, 1280),
        ("timm:resnet18", {"image_size": (128, 64)}, 512),
        ("timm:vit_tiny_patch16_224", {"image_size": (128, 64)}, 192),
        ("timm:mobilenetv3_small_050", {}, 1024),
    ],
)
def test_forward_and_backward(name: str, options: dict[str, object], dim: int) -> None:
    embedder = build_embedder(name, init="random", seed=0, **options)  # type: ignore[arg-type]
    features = embedder(torch.rand(2, 3, 128, 64))
    assert features.shape == (2, dim) == (2, embedder.dim)
    features.square().sum().backward()
    assert all(p.grad is not None for p in embedder.parameters() if p.requires_grad)


def test_resnet_keeps_its_resolution_in_the_last_stage() -> None:
    images = torch.zeros(1, 3, 128, 64)
    for stride, shape in ((None, (8, 4)), (1, (8, 4)), (2, (4, 2))):
        embedder = build_embedder("timm:resnet18", init="random", last_stride=stride)
        assert embedder.backbone.features(images).shape[2:] == shape
    lite0 = build_embedder(last_stride=1)
    assert lite0.backbone.features(images).shape[2:] == (8, 4)


def test_last_stage_without_stride_still_follows_torchvision() -> None:
    """Independent check of the surgery: the same edit by hand on another implementation."""
    theirs = resnet50(weights=None)
    theirs.layer4[0].conv2.stride = theirs.layer4[0].downsample[0].stride = (1, 1)
    theirs.fc = torch.nn.Identity()
    embedder = build_embedder("timm:resnet50", init="random", neck="none")
    state = theirs.state_dict()
    embedder.backbone.model.load_state_dict(state)
    images = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        assert torch.allclose(embedder.eval()(images), theirs.eval()(images), atol=1e-4)


def test_channels_last_gives_the_same_features() -> None:
    embedder = build_embedder("osnet_x0_25", init="random", seed=0).eval()
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        expected = embedder(images)
        embedder.to(memory_format=torch.channels_last)
        got = embedder(images.to(memory_format=torch.channels_last))
    assert torch.allclose(got, expected, atol=1e-5)


def test_seed_decides_random_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = build_embedder("osnet_x0_25", init="random", seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = build_embedder("osnet_x0_25", init="random", seed=3)
    other = build_embedder("osnet_x0_25", init="random", seed=4)
    key = "backbone.conv5.conv.weight"
    assert torch.equal(first.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "osnet_x2_0"}, "backbone"),
        ({"name": "timm:no_such_network"}, "backbone"),
        ({"pooling": "max"}, "pooling"),
        ({"neck": "long"}, "neck"),
        ({"last_stride": 3}, "last_stride"),
        ({"name": "osnet_x0_25", "last_stride": 1}, "last_stride"),
        ({"name": "timm:mobilenetv3_small_050", "last_stride": 1}, "last_stride"),
        ({"name": "timm:vit_tiny_patch16_224", "pooling": "gem"}, "pooling"),
        ({"name": "osnet_x0_25", "init": "embedded"}, "init"),
        ({"name": "osnet_x0_25", "init": "timm"}, "init"),
        ({"init": "no/such/file.pth"}, "init"),
    ],
)
def test_wrong_options_name_their_field(options: dict[str, object], field: str) -> None:
    arguments = {"name": "efficientnet_lite0", "init": "random"} | options
    with pytest.raises(InvalidArgument) as caught:
        build_embedder(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field
