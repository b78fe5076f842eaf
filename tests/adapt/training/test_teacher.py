"""Soft targets against their definitions, and a teacher's training against a literal loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from adapt.data.augmentation import Normalisation
from adapt.data.cache import CropCache
from adapt.memory.cluster import ClusterMemory
from adapt.methods.cluster_contrast import ClusterContrast
from adapt.methods.method import EpochLabels, Features
from adapt.training.batch_norm import batch_norms
from adapt.training.config import RunConfig
from adapt.training.step import TrainingStep
from adapt.training.teacher import batch_statistics, soft_cross_entropy, soft_triplet
from adapt.training.views import Views, Workload, training_views

CPU = torch.device("cpu")
CLASSES, EACH, STEPS = 6, 5, 7
BASE = {
    "height": 16, "width": 16, "p": 4, "k": 3, "epochs": 1, "iterations": STEPS, "pad": 2,
    "lr": 1e-2, "temperature": 0.3, "schedule": "constant", "threads": 1, "k1": 8, "k2": 3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network() -> nn.Sequential:
    """No bias before a norm: its gradient is rounding noise, which Adam takes for a direction."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=4, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, 8, bias=False),
        nn.BatchNorm1d(8),
    )  # fmt: skip


def pixels() -> NDArray[np.uint8]:
    """Six colours, five noisy images of each."""
    random = np.random.default_rng(3)
    colours = random.integers(0, 256, (CLASSES, 1, 1, 1, 3))
    noise = random.normal(0, 60, (CLASSES, EACH, 16, 16, 3))
    images = (colours + noise).clip(0, 255).astype(np.uint8)
    return images.reshape(-1, 16, 16, 3)


class Fixed:
    """Cluster Contrast with given classes, and the steps of one epoch."""

    def __init__(self, **settings: object) -> None:
        self.config = RunConfig(**(BASE | settings))  # type: ignore[arg-type]
        images = pixels()
        rows = np.arange(len(images))
        self.classes = np.repeat(np.arange(CLASSES), EACH)
        cache = CropCache(images, rows, (), (), "fixed", reused=False)
        normalise = Normalisation((0.5,) * 3, (0.25,) * 3)
        self.work = Workload(cache, None, normalise, _no_features, STEPS, CPU)
        self.labels = EpochLabels(self.classes, CLASSES, CLASSES, 0, EACH)
        self.method = ClusterContrast(self.config, None, CPU)
        random = torch.Generator().manual_seed(5)
        vectors = functional.normalize(torch.randn(len(rows), 8, generator=random), dim=1)
        self.method._memory = ClusterMemory(
            vectors, torch.from_numpy(self.classes), CLASSES,
            temperature=self.config.temperature, momentum=self.config.momentum, update="mean",
        )  # fmt: skip
        self.model = network()

    def views(self) -> Iterator[Views]:
        return training_views(self.config, self.work, self.labels, 0)

    def train(self) -> TrainingStep:
        torch.manual_seed(11)
        step = TrainingStep(self.model, self.method, self.config, device=CPU, iterations=STEPS)
        self.model.train()
        self.losses = [float(step(views, number)) for number, views in enumerate(self.views())]
        return step


def _no_features(model: nn.Module, parts: object = None) -> Features:
    raise AssertionError("not asked for")


def literal(fixed: Fixed) -> tuple[nn.Sequential, nn.Sequential, list[float]]:
    """The equations of the module, one image and one parameter at a time."""
    settings, tau = fixed.config.teacher, fixed.config.temperature
    student, teacher = network(), network()
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-2, weight_decay=5e-4)
    memory = fixed.method._ready().vectors.clone()
    losses = []
    torch.manual_seed(11)
    student.train()
    for number, views in enumerate(fixed.views()):
        raw = student(views.inputs)
        seen = copy.deepcopy(teacher).train()
        seen[5].eval()
        with torch.no_grad():
            taught = seen(views.inputs if views.again is None else views.again)
        hard, soft, triplet = torch.zeros(()), torch.zeros(()), []
        for own, goal, label in zip(raw, taught, views.classes.tolist(), strict=True):
            scores = (memory @ (own / own.norm())) / tau
            wanted = (memory @ (goal / goal.norm())) / tau
            hard = hard - scores.log_softmax(0)[label]
            probabilities = (wanted / settings.temperature).softmax(0)
            ours = (scores / settings.temperature).log_softmax(0)
            for wish, log in zip(probabilities, ours, strict=True):
                soft = soft - settings.temperature**2 * wish * log
        at = raw.detach()
        for a in range(len(raw)):
            label = int(views.classes[a])
            alike = [i for i in range(len(raw)) if views.classes[i] == label and i != a]
            unlike = [i for i in range(len(raw)) if views.classes[i] != label]
            if not alike or not unlike:
                continue
            p = max(alike, key=lambda i: float((at[a] - at[i]).norm()))
            n = min(unlike, key=lambda i: float((at[a] - at[i]).norm()))
            q = torch.sigmoid((raw[a] - raw[n]).norm() - (raw[a] - raw[p]).norm())
            w = torch.sigmoid((taught[a] - taught[n]).norm() - (taught[a] - taught[p]).norm())
            triplet.append(-(w * q.log() + (1 - w) * (1 - q).log()))
        loss = (1 - settings.weight) * hard / len(raw) + settings.weight * (
            soft / len(raw) + settings.triplet * torch.stack(triplet).mean()
        )
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        for own, label in zip(raw.detach(), views.classes.tolist(), strict=True):
            mixed = 0.1 * memory[label] + 0.9 * own / own.norm()
            memory[label] = mixed / mixed.norm()
        decay = min(settings.decay, (number + 1) / (number + 10))
        ours = student.state_dict()
        for name, value in teacher.state_dict().items():
            if value.is_floating_point():
                value.copy_(decay * value + (1 - decay) * ours[name])
    return student, teacher, losses


@pytest.mark.parametrize(
    "teacher",
    [
        {"weight": 0.5, "decay": 0.6, "triplet": 1.6},
        {"weight": 1.0, "temperature": 2.5, "second_augmentation": False},
    ],
)
def test_training_is_the_literal_loop(teacher: dict[str, float]) -> None:
    expected_student, expected_teacher, expected_losses = literal(Fixed(teacher=teacher))
    fixed = Fixed(teacher=teacher)
    step = fixed.train()
    np.testing.assert_allclose(fixed.losses, expected_losses, rtol=1e-4)
    assert step.twin is not None
    for ours, theirs in ((fixed.model, expected_student), (step.twin.module, expected_teacher)):
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(ours.state_dict()[name], value, rtol=2e-3, atol=2e-4)


def test_weight_nought_is_no_teacher() -> None:
    plain, nought, averaged = Fixed(), Fixed(teacher={"decay": 0.5, "triplet": 3}), Fixed(ema=0.9)
    steps = [fixed.train() for fixed in (plain, nought, averaged)]
    assert [step.twin is None for step in steps] == [True, True, False]
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, nought.model.state_dict()[name])
        assert torch.equal(value, averaged.model.state_dict()[name])


def test_the_student_sees_the_same_images_with_and_without_a_teacher() -> None:
    alone, taught = list(Fixed().views()), list(Fixed(teacher={"weight": 0.5}).views())
    for first, second in zip(alone, taught, strict=True):
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.rows, second.rows)
        assert first.again is None
        assert second.again is not None
        assert not torch.equal(second.again, second.inputs)


def test_frozen_norms_teach_by_running_statistics() -> None:
    fixed = Fixed(teacher={"weight": 1.0}, freeze_bn=True)
    fixed.model.train()
    for norm in batch_norms(fixed.model):
        norm.eval()
    step = TrainingStep(fixed.model, fixed.method, fixed.config, device=CPU, iterations=STEPS)
    assert step.twin is not None
    views = next(fixed.views())
    assert views.again is not None
    memory = fixed.method._ready().vectors.clone()
    torch.manual_seed(2)
    loss = step(views, 0)
    model = network()
    with torch.no_grad():
        taught = functional.normalize(model.eval()(views.again), dim=1) @ memory.t() / 0.3
        model[5].train()
        torch.manual_seed(2)
        own = functional.normalize(model(views.inputs), dim=1) @ memory.t() / 0.3
    expected = -(taught.softmax(1) * own.log_softmax(1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)


def test_teaching_leaves_the_twins_statistics_alone() -> None:
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    inputs = torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), batch_statistics(model):
        seen = model(inputs)
    after = model.state_dict()
    assert all(torch.equal(v, after[n]) for n, v in before.items() if v.is_floating_point())
    assert not any(module.training for module in model.modules())
    assert {norm.momentum for norm in batch_norms(model)} == {0.1}
    replica = network().train()
    replica[5].eval()
    torch.testing.assert_close(seen, replica(inputs))


def test_soft_cross_entropy_is_least_at_the_teachers_own_scores() -> None:
    random = torch.Generator().manual_seed(1)
    targets = torch.randn(5, 9, generator=random)
    logits = targets.clone().requires_grad_()
    soft_cross_entropy(logits, targets, 3.0).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(5, 9), atol=1e-6, rtol=0)
    entropy = -((targets / 3).softmax(1) * (targets / 3).log_softmax(1)).sum(dim=1).mean() * 9
    torch.testing.assert_close(soft_cross_entropy(targets, targets, 3.0), entropy)


@pytest.mark.parametrize("classes", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_a_batch_without_triplets_costs_nothing(classes: list[int]) -> None:
    features = torch.randn(4, 3, requires_grad=True)
    loss = soft_triplet(features, torch.randn(4, 3), torch.tensor(classes))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss) == 0.0


def test_equal_crops_have_a_finite_gradient() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    soft_triplet(features, torch.ones(4, 3), torch.tensor([0, 0, 1, 1])).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()
    loss = soft_triplet(torch.ones(4, 3), torch.ones(4, 3), torch.tensor([0, 0, 1, 1]))
    assert float(loss) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"ema": 0.9}, "teacher.decay"),
        ({"method": "bn-stats"}, "bn-stats"),
    ],
)
def test_what_contradicts_a_teacher_is_refused(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        RunConfig(teacher={"weight": 0.5}, **settings)  # type: ignore[arg-type]
