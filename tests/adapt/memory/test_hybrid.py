"""The hybrid memory against SpCL's equations, written out over all N instances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from adapt.memory.cluster import centroids
from adapt.memory.hybrid import HybridMemory
from adapt.methods.method import Features
from adapt.methods.spcl import Spcl
from adapt.training.config import RunConfig


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=random), dim=1)


CLASSES = torch.tensor([0, 0, 1, 1, 1, 2, 3, 4])


def literal_loss(vectors: Tensor, batch: Tensor, rows: list[int]) -> float:
    total = 0.0
    for feature, row in zip(batch, rows, strict=True):
        similarity = vectors @ feature / 0.05
        scores = [math.exp(float(similarity[c == CLASSES].mean())) for c in range(5)]
        total -= math.log(scores[int(CLASSES[row])] / sum(scores))
    return total / len(rows)


def test_loss_follows_the_instances_through_updates() -> None:
    vectors = unit(8, 12, 0)
    memory = HybridMemory(vectors.clone(), temperature=0.05, momentum=0.2)
    memory.assign(CLASSES, 5)
    literal = vectors.clone()
    for step in range(6):
        batch, rows = unit(5, 12, 10 + step), [0, 3, 0, 6, 2]
        assert float(memory.loss(batch, torch.tensor(rows))) == pytest.approx(
            literal_loss(literal, batch, rows), rel=1e-4
        )
        memory.update(batch, torch.tensor(rows))
        for feature, row in zip(batch, rows, strict=True):
            mixed = 0.2 * literal[row] + 0.8 * feature
            literal[row] = mixed / mixed.norm()
        torch.testing.assert_close(memory.vectors, literal, rtol=0, atol=1e-6)


def test_gradient_equals_that_of_the_instance_formulation() -> None:
    vectors = unit(8, 12, 0)
    memory = HybridMemory(vectors.clone(), temperature=0.05, momentum=0.2)
    memory.assign(CLASSES, 5)
    rows = torch.tensor([1, 5, 4])
    ours = unit(3, 12, 1).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    memory.loss(ours, rows).backward()
    mask = functional.one_hot(CLASSES).float()
    scores = (theirs @ vectors.t() / 0.05) @ (mask / mask.sum(dim=0))
    functional.cross_entropy(scores, CLASSES[rows]).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_source_identities_are_further_classes_of_both_losses() -> None:
    vectors, people = unit(8, 12, 0), unit(3, 12, 1)
    memory = HybridMemory(vectors.clone(), temperature=0.05, momentum=0.2, source=people.clone())
    memory.assign(CLASSES, 5)
    target, source = unit(4, 12, 2), unit(5, 12, 3)
    rows, identities = [0, 3, 5, 2], [2, 0, 2, 1, 2]
    losses = [0.0, 0.0]
    for domain, (batch, slots) in enumerate(((target, rows), (source, identities))):
        for feature, slot in zip(batch, slots, strict=True):
            near = [float((vectors[c == CLASSES] @ feature).mean()) for c in range(5)]
            near += [float(person @ feature) for person in people]
            weights = [math.exp(value / 0.05) for value in near]
            wanted = 5 + slot if domain else int(CLASSES[slot])
            losses[domain] -= math.log(weights[wanted] / sum(weights)) / len(batch)
    assert float(memory.loss(target, torch.tensor(rows))) == pytest.approx(losses[0], rel=1e-4)
    found = float(memory.source_loss(source, torch.tensor(identities)))
    assert found == pytest.approx(losses[1], rel=1e-4)
    assert memory.logits(target).shape == (4, 8)

    memory.update_source(source, torch.tensor(identities))
    for feature, person in zip(source, identities, strict=True):
        mixed = 0.2 * people[person] + 0.8 * feature
        people[person] = mixed / mixed.norm()
    assert memory.source is not None
    torch.testing.assert_close(memory.source, people, rtol=0, atol=1e-6)
    torch.testing.assert_close(memory.vectors, vectors)


class Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that make a new tensor of at least ``size`` numbers."""

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = size
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        held = {value.data_ptr() for value in args if isinstance(value, Tensor)}
        large = isinstance(made, Tensor) and made.numel() >= self.size
        if large and made.data_ptr() not in held:
            self.names.append(str(func))
        return made


def large_made(size: int, work: Callable[[], object]) -> int:
    with Made(size) as made:
        work()
    return len(made.names)


def test_a_step_copies_nothing_as_large_as_the_memory() -> None:
    vectors, source = unit(400, 64, 0), unit(50, 64, 1)
    memory = HybridMemory(vectors, temperature=0.05, momentum=0.2, source=source)
    assert memory.vectors is vectors
    memory.assign(torch.arange(400), 400)
    features, rows = unit(4, 64, 2).requires_grad_(), torch.tensor([3, 9, 9, 70])

    def step() -> None:
        torch.autograd.backward(memory.loss(features, rows))
        torch.autograd.backward(memory.source_loss(features, rows % 50))
        memory.update(features.detach(), rows)

    assert large_made(400 * 64, step) == 0


def test_means_of_all_rows_make_nothing_else_of_their_size() -> None:
    features = unit(400, 64, 0)
    classes = torch.arange(400)
    assert large_made(400 * 64, lambda: centroids(features, classes, 400)) == 1
    classes[7] = -1
    means = centroids(features, classes, 400)
    assert bool((means[7] == 0).all())
    assert torch.equal(means[8], features[8])


def test_extracted_features_become_the_memory() -> None:
    config = RunConfig(method="spcl", k1=8, k2=3, p=2, k=2, threads=1)
    method = Spcl(config, None, torch.device("cpu"))
    features = Features(unit(60, 16, 0).numpy())
    method.prepare_epoch(features, 0)
    vectors = method.state_dict()["vectors"]
    assert isinstance(vectors, Tensor)
    assert vectors.data_ptr() == torch.from_numpy(features.vectors).data_ptr()


def test_a_memory_without_classes_says_so() -> None:
    with pytest.raises(ValueError, match="assign comes first"):
        HybridMemory(unit(4, 8, 0), temperature=0.05, momentum=0.2).logits(unit(2, 8, 1))
