"""SpCL with a labelled source set: a literal loop, and runs blind to who the target shows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adapt.data.augmentation import Normalisation
from adapt.data.cache import CropCache
from adapt.evaluation.labels import Labels, read_labels
from adapt.methods.method import EpochLabels, Features
from adapt.methods.spcl import Spcl
from adapt.training.batch_norm import group_batch_norms
from adapt.training.config import RunConfig
from adapt.training.engine import Engine
from adapt.training.outcome import RunOutcome
from adapt.training.run import adapt
from adapt.training.source_set import SourceSet
from adapt.training.step import TrainingStep
from adapt.training.views import Views, Workload, training_views
from resight.bundle.reader import open_bundle
from resight.errors import FailedPrecondition, InvalidArgument

MakeCrops = Callable[..., Path]
CPU = torch.device("cpu")
STEPS = 5
SETTINGS: dict[str, Any] = {
    "method": "spcl", "features": "memory", "backbone": "timm:test_efficientnet", "init": "random",
    "height": 32, "width": 16, "pad": 2, "p": 4, "k": 4, "epochs": 2, "iterations": 3, "k1": 12,
    "k2": 3, "lr": 1e-3, "device": "cpu", "threads": 1, "extraction": "torch", "momentum": 0.2,
    "deterministic": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=4, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8),
    )  # fmt: skip


def colours(people: int, each: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    clothes = random.integers(0, 256, (people, 1, 1, 1, 3))
    images = clothes + random.normal(0, 50, (people, each, 16, 16, 3))
    return images.clip(0, 255).astype(np.uint8).reshape(-1, 16, 16, 3)


def unit(rows: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, 8, generator=random), dim=1)


class Pair:
    """Target crops of six clusters and two singletons, source crops of five people."""

    def __init__(self) -> None:
        self.config = RunConfig(
            **{**SETTINGS, "epochs": 1, "iterations": STEPS, "lr": 1e-2, "temperature": 0.3,
               "schedule": "constant", "k": 3}
        )  # fmt: skip
        images, known = colours(7, 4, 1), colours(5, 6, 2)
        self.classes = np.array([*np.repeat(np.arange(6), 4), 6, 7, 0, 1])
        identities = np.repeat(np.arange(5), 6)
        identities[4] = -1
        self.source = SourceSet(_cache(known), identities, None, 0)
        normalise = Normalisation((0.5,) * 3, (0.25,) * 3)
        self.work = Workload(
            _cache(images), None, normalise, _no_features, STEPS, CPU, self.source, _no_features
        )
        self.labels = EpochLabels(self.classes, 8, 6, 2, 5)
        self.vectors, self.source_features = unit(28, 3), unit(30, 4)

    def views(self) -> Iterator[Views]:
        return training_views(self.config, self.work, self.labels, 0)


def _cache(images: NDArray[np.uint8]) -> CropCache:
    return CropCache(images, np.arange(len(images)), (), (), "fixed", reused=False)


def _no_features(model: nn.Module, parts: object = None) -> Features:
    raise AssertionError("not asked for")


def test_training_is_the_literal_loop() -> None:
    pair = Pair()
    model = network()
    group_batch_norms(model, 0, domains=True)
    method = Spcl(pair.config, None, CPU)
    wanted = [method.wants_source]
    method.prepare_source(Features(pair.source_features.numpy()), pair.source.identities)
    assert [*wanted, method.wants_source] == [True, False]
    method._fill(pair.vectors.clone())
    method._ready().assign(torch.from_numpy(pair.classes), 8)
    step = TrainingStep(model, method, pair.config, device=CPU, iterations=STEPS)
    losses = [float(step(views, number)) for number, views in enumerate(pair.views())]

    target = network()
    source = copy.deepcopy(target)
    source[0], source[5] = target[0], target[5]
    parameters = {id(p): p for net in (target, source) for p in net.parameters()}
    optimiser = torch.optim.Adam(parameters.values(), lr=1e-2, weight_decay=5e-4)
    vectors = pair.vectors.clone()
    people = []
    for person in range(5):
        mine = pair.source_features[torch.from_numpy(pair.source.identities == person)]
        people.append(mine.mean(dim=0) / mine.mean(dim=0).norm())
    expected = []
    for views in pair.views():
        assert views.source is not None
        assert views.identities is not None
        assert (views.identities >= 0).all()
        seen = [target(views.inputs), source(views.source)]
        rows, names = views.rows.tolist(), views.identities.tolist()
        centres = [vectors[torch.from_numpy(pair.classes == c)].mean(dim=0) for c in range(8)]
        bank = torch.stack([*centres, *people]).detach()
        loss = torch.zeros(())
        for raw, slots in (
            (seen[0], [int(pair.classes[row]) for row in rows]),
            (seen[1], [8 + name for name in names]),
        ):
            for feature, slot in zip(raw, slots, strict=True):
                scores = bank @ (feature / feature.norm()) / 0.3
                loss = loss - scores.log_softmax(0)[slot] / len(raw)
        expected.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        for feature, row in zip(seen[0].detach(), rows, strict=True):
            mixed = 0.2 * vectors[row] + 0.8 * feature / feature.norm()
            vectors[row] = mixed / mixed.norm()
        for feature, name in zip(seen[1].detach(), names, strict=True):
            mixed = 0.2 * people[name] + 0.8 * feature / feature.norm()
            people[name] = mixed / mixed.norm()

    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    state = method.state_dict()
    assert isinstance(state["source"], Tensor)
    torch.testing.assert_close(state["source"], torch.stack(people), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(method._ready().vectors, vectors, rtol=1e-3, atol=1e-4)
    for name, value in target.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=2e-3, atol=2e-4)
    for number in (1, 6):
        for name, value in source[number].state_dict().items():
            if value.is_floating_point():
                ours = model.state_dict()[f"{number}.source.{name}"]
                torch.testing.assert_close(ours, value, rtol=2e-3, atol=2e-4)


class Runs:
    """Short runs over one target and one source, most without the export."""

    def __init__(self, make_crops: MakeCrops, tmp_path: Path) -> None:
        self.target = make_crops(8, 6, name="target", seed=1)
        self.source = make_crops(6, 6, name="source", seed=2)
        self.folder = tmp_path

    def run(
        self, name: str, *, labelled: Path | None, crops: Path | None = None, resume: bool = False,
        **settings: Any,
    ) -> RunOutcome:  # fmt: skip
        return adapt(
            crops or self.target,
            self.folder / name,
            RunConfig(**{**SETTINGS, **settings}),
            cache=self.folder / "cache",
            labelled=labelled,
            resume=resume,
        )

    def state(self, name: str) -> dict[str, Any]:
        path = self.folder / name / "checkpoint.pt"
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state

    def manifest(self, name: str, identities: list[str] | None) -> Path:
        """The target as a manifest, with these identities or without the column."""
        paths = sorted(path.name for path in self.target.iterdir())
        lines = [f"target/{path},c{path[6]}" for path in paths]
        header = "path,camera"
        if identities is not None:
            header += ",identity"
            lines = [f"{line},{who}" for line, who in zip(lines, identities, strict=True)]
        manifest = self.folder / f"{name}.csv"
        manifest.write_text("\n".join([header, *lines]) + "\n")
        return manifest


def _target_of(name: str) -> str:
    return name.replace(".source.", ".")


@pytest.fixture
def runs(make_crops: MakeCrops, tmp_path: Path) -> Runs:
    return Runs(make_crops, tmp_path)


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapt.training.run._Run._export", lambda *_: "none")


@pytest.mark.usefixtures("unexported")
def test_the_targets_identities_are_never_read(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def watched(spec: str | Path) -> Labels:
        asked.append(Path(spec))
        return read_labels(spec)

    monkeypatch.setattr("adapt.training.source_set.read_labels", watched)
    paths = sorted(path.name for path in runs.target.iterdir())
    columns = {
        "none": None,
        "true": [path[:4] for path in paths],
        "wrong": [str(number % 3) for number in range(len(paths))],
    }
    states = {}
    for name, column in columns.items():
        runs.run(name, labelled=runs.source, crops=runs.manifest(name, column))
        states[name] = runs.state(name)
    for name in ("true", "wrong"):
        assert torch.equal(states[name]["labels"], states["none"]["labels"])
        for key, value in states["none"]["model"].items():
            assert torch.equal(value, states[name]["model"][key])
    assert asked == [runs.source] * 3


@pytest.mark.usefixtures("unexported")
def test_the_source_changes_what_is_learnt_and_the_summary_says_so(runs: Runs) -> None:
    runs.run("without", labelled=None)
    runs.run("with", labelled=runs.source)
    plain, taught = runs.state("without")["model"], runs.state("with")["model"]
    assert any(not torch.equal(value, taught[name]) for name, value in plain.items())
    sources = [name for name in taught if ".source." in name]
    assert sources
    means = [name for name in sources if name.endswith("running_mean")]
    moved = [name for name in means if not torch.equal(taught[name], taught[_target_of(name)])]
    assert moved
    summary = json.loads((runs.folder / "with" / "summary.json").read_text())
    assert summary["crops"]["source_set"]["identities"] == 6
    assert summary["crops"]["usable"] == 48
    record = json.loads((runs.folder / "with" / "run.json").read_text())
    assert record["crops"]["labelled"] == str(runs.source)


@pytest.mark.usefixtures("unexported")
def test_a_resumed_run_ends_as_an_uninterrupted_one_and_only_with_its_source(
    runs: Runs, make_crops: MakeCrops, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.run("whole", labelled=runs.source)
    train = Engine._train

    def interrupted(engine: Engine, epoch: int, labels: EpochLabels) -> float:
        if epoch == 1:
            raise KeyboardInterrupt
        return train(engine, epoch, labels)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.run("cut", labelled=runs.source)
    assert runs.state("cut")["epoch"] == 1
    for labelled in (None, make_crops(5, 6, name="other", seed=5)):
        with pytest.raises(FailedPrecondition, match="another set of crops"):
            runs.run("cut", labelled=labelled, resume=True)
    runs.run("cut", labelled=runs.source, resume=True)
    whole, cut = runs.state("whole"), runs.state("cut")
    assert torch.equal(whole["labels"], cut["labels"])
    assert all(torch.equal(value, cut["model"][key]) for key, value in whole["model"].items())
    assert torch.equal(whole["method"]["source"], cut["method"]["source"])


def test_the_bundle_is_the_targets_branch(runs: Runs) -> None:
    from safetensors.torch import load_file

    outcome = runs.run("run", labelled=runs.source, ema=0.5)
    bundle = open_bundle(outcome.directory.bundle)
    weights = load_file(bundle.directory / "weights.safetensors")
    state = runs.state("run")["ema"]
    assert weights.keys() == {name for name in state if ".source." not in name}
    assert all(torch.equal(value, state[name]) for name, value in weights.items())
    assert "36 labelled crops of 6 people" in (bundle.directory / "model_card.md").read_text()


@pytest.mark.usefixtures("unexported")
def test_methods_that_learn_nothing_from_a_source_refuse_it(runs: Runs) -> None:
    cases: list[dict[str, Any]] = [
        {"method": "cluster-contrast", "features": "re-extract"},
        {"epochs": 0},
    ]
    for number, settings in enumerate(cases):
        with pytest.raises(InvalidArgument, match="--source") as caught:
            runs.run(f"refused{number}", labelled=runs.source, **settings)
        assert caught.value.field == "source"
