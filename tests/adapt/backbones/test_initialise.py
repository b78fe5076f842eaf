"""State dicts of the field and warm starts: loaded exactly or refused clearly."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet50

from adapt.backbones.build import build_embedder
from adapt.backbones.osnet import OSNET_VARIANTS, OSNet
from adapt.backbones.warm_start import WARM_START_FILE, save_warm_start
from resight.errors import InvalidArgument


def _osnet(name: str = "osnet_x0_25") -> dict[str, torch.Tensor]:
    return OSNet(OSNET_VARIANTS[name]).state_dict()


def test_torchvision_resnet50_state_dict_loads(tmp_path: Path) -> None:
    theirs = resnet50(weights=None)
    path = tmp_path / "resnet50.pth"
    torch.save(theirs.state_dict(), path)
    embedder = build_embedder("timm:resnet50", init=path, neck="none", last_stride=2).eval()
    report = embedder.init_report
    assert report.kind == "state-dict"
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(report.dropped) == {"fc.weight", "fc.bias"}
    theirs.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        assert torch.allclose(embedder(images), theirs.eval()(images), atol=1e-4)


@pytest.mark.parametrize("container", ["plain", "checkpoint", "parallel", "safetensors"])
def test_wrappings_of_a_state_dict(tmp_path: Path, container: str) -> None:
    state = _osnet() | {"classifier.weight": torch.zeros(7, 512)}
    path = tmp_path / ("w.safetensors" if container == "safetensors" else "w.pth")
    if container == "plain":
        torch.save(state, path)
    elif container == "checkpoint":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif container == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    else:
        save_file(state, path)
    embedder = build_embedder("osnet_x0_25", init=path)
    loaded = embedder.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)
    assert embedder.init_report.dropped == ("classifier.weight",)


@pytest.mark.parametrize(
    ("state", "suggestion"),
    [
        (_osnet("osnet_x0_5"), "osnet_x0_5"),
        (_osnet("osnet_ain_x0_25"), "osnet_ain_x0_25"),
        (resnet50(weights=None).state_dict(), "timm:resnet50"),
    ],
    ids=["width", "ain", "resnet"],
)
def test_weights_of_another_network_are_refused_with_the_right_name(
    tmp_path: Path, state: dict[str, torch.Tensor], suggestion: str
) -> None:
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(InvalidArgument) as caught:
        build_embedder("osnet_x0_25", init=path)
    assert suggestion in caught.value.message
    assert str(path) in caught.value.message
    assert "conv1" in caught.value.message


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    state = _osnet()
    del state["conv3.1.gate.fc2.bias"]
    path = tmp_path / "cut.pth"
    torch.save(state, path)
    with pytest.raises(InvalidArgument, match=r"1 missing: conv3\.1\.gate\.fc2\.bias"):
        build_embedder("osnet_x0_25", init=path)


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("pwned", "w"))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in (("a.pth", torch.save), ("b.pth", None)):
        path = tmp_path / name
        if write is None:
            path.write_bytes(pickle.dumps({"state_dict": _Payload()}))
        else:
            write({"state_dict": _Payload()}, path)
        with pytest.raises(InvalidArgument, match="state dict"):
            build_embedder("osnet_x0_25", init=path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=name):
        build_embedder("osnet_x0_25", init=path)


def test_warm_start_brings_back_the_whole_embedder(tmp_path: Path) -> None:
    trained = build_embedder("timm:resnet18", init="random", pooling="gem", seed=0)
    with torch.no_grad():
        trained.pooling.p.fill_(4.5)
        trained.neck.weight.fill_(0.25)
    trained(torch.rand(4, 3, 64, 32))  # moves the running statistics
    path = tmp_path / WARM_START_FILE
    path.write_bytes(save_warm_start(trained))
    again = build_embedder("timm:resnet18", init=path, pooling="gem")
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(again.eval()(images), trained.eval()(images))
    assert again.pooling.p.item() == 4.5
    assert again.init_report.kind == "warm-start"


def test_warm_start_brings_its_input_statistics(tmp_path: Path) -> None:
    trained = build_embedder("timm:resnet18", init="random", seed=0)
    trained.mean = (0.1, 0.2, 0.3)
    path = tmp_path / WARM_START_FILE
    path.write_bytes(save_warm_start(trained))
    assert build_embedder("timm:resnet18", init=path).mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("name", "options", "difference"),
    [
        ("timm:resnet34", {}, "backbone 'timm:resnet18' instead of 'timm:resnet34'"),
        ("timm:resnet18", {"pooling": "gem"}, "pooling 'avg' instead of 'gem'"),
        ("timm:resnet18", {"neck": "none"}, "neck 'bn' instead of 'none'"),
        ("timm:resnet18", {"last_stride": 2}, "last_stride"),
    ],
)
def test_warm_start_of_another_network_is_refused(
    tmp_path: Path, name: str, options: dict[str, object], difference: str
) -> None:
    path = tmp_path / WARM_START_FILE
    path.write_bytes(save_warm_start(build_embedder("timm:resnet18", init="random")))
    with pytest.raises(InvalidArgument, match=difference):
        build_embedder(name, init=path, **options)  # type: ignore[arg-type]
