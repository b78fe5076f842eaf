"""Batch norm for adaptation: virtual groups, two domains, freezing, re-estimation.

*Groups.* The published results were made with DataParallel, where each GPU normalises its share of
the batch: 64 images on four GPUs are four groups of 16, and that size moves the result by many
points. With groups of g, in training mode each run of g images is normalised by its own statistics;
the running statistics move by the mean over the groups (DataParallel keeps those of the first GPU:
intended deviation), the variance unbiased as torch's is.

*Domains.* With a labelled source set each norm has a branch for it, of its own weights and
statistics (Chang et al., CVPR 2019: domain-specific batch normalisation). In training, within
``seeing_both``, the first half of a batch is the source's; otherwise all is the target's, whose
branch is the norm that is exported.

*Re-estimation.* Running statistics become the plain average of batch statistics over given batches
("precise BN", Wu and Johnson 2021).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "DomainBatchNorm",
    "GroupedBatchNorm",
    "batch_norms",
    "group_batch_norms",
    "reestimate",
    "running_statistics",
    "seeing_both",
    "ungroup",
]


class GroupedBatchNorm(nn.Module):
    """A batch norm over groups of images, in place of ``original``, with the same state dict.

    Shares the parameters of ``original``; its activation and drop, where timm fused them into the
    norm, still follow. ``group`` 0 is the whole batch.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, original: _BatchNorm, group: int = 0) -> None:
        super().__init__()
        self._original = (original,)  # in a tuple, so that it is not a submodule
        self.group = group
        self.eps = original.eps
        self.momentum = original.momentum
        self.weight = original.weight
        self.bias = original.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(original, name))
        self.drop = getattr(original, "drop", nn.Identity())
        self.act = getattr(original, "act", nn.Identity())

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises (B, C, …); groups are runs along the batch, the last may be short."""
        outputs = self._grouped(inputs) if self.training else self._running(inputs)
        activated: Tensor = self.act(self.drop(outputs))
        return activated

    def restore(self) -> _BatchNorm:
        """The original norm, with the statistics gathered here."""
        original = self._original[0]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(original, name, getattr(self, name))
        return original.train(self.training)

    def _running(self, inputs: Tensor) -> Tensor:
        return functional.batch_norm(
            inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _grouped(self, inputs: Tensor) -> Tensor:
        groups = torch.split(inputs, _group_sizes(len(inputs), self.group or len(inputs)))
        means = self.running_mean.new_zeros((len(groups), len(self.running_mean)))
        variances = torch.ones_like(means)
        # With momentum 1 torch writes each group's own statistics into its row.
        normalised = [
            functional.batch_norm(
                part, means[i], variances[i], self.weight, self.bias, True, 1.0, self.eps
            )
            for i, part in enumerate(groups)
        ]
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = self.momentum
            if share is None:  # torch's convention for a plain average
                share = 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(means.mean(dim=0), share)
            self.running_var.lerp_(variances.mean(dim=0), share)
        return torch.cat(normalised)


class DomainBatchNorm(GroupedBatchNorm):
    """The target's norm, with a branch for the source that starts as its copy.

    Attributes:
        source: The source's branch.
        both: Whether the first half of a batch is the source's.
    """

    def __init__(self, original: _BatchNorm, group: int = 0) -> None:
        super().__init__(original, group)
        self.source = GroupedBatchNorm(copy.deepcopy(original), group)
        self.both = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises (B, C, …), each half by its domain's norm where there are two."""
        if not self.both:
            return super().forward(inputs)
        source, target = inputs.chunk(2)
        return torch.cat([self.source(source), super().forward(target)])


@contextmanager
def seeing_both(model: nn.Module) -> Iterator[None]:
    """The first half of each batch that ``model`` sees is the source's, the other the target's."""
    norms = [module for module in model.modules() if isinstance(module, DomainBatchNorm)]
    for norm in norms:
        norm.both = True
    try:
        yield
    finally:
        for norm in norms:
            norm.both = False


def batch_norms(model: nn.Module) -> Iterator[_BatchNorm | GroupedBatchNorm]:
    """All batch norms of ``model``, grouped or not, that keep running statistics."""
    for module in model.modules():
        if isinstance(module, GroupedBatchNorm) or (
            isinstance(module, _BatchNorm) and module.track_running_stats
        ):
            yield module


def running_statistics(model: nn.Module) -> Iterator[Tensor]:
    """Running means and variances of all batch norms of ``model``, the very tensors."""
    for norm in batch_norms(model):
        for value in (norm.running_mean, norm.running_var):
            if value is not None:
                yield value


def group_batch_norms(model: nn.Module, group: int, *, domains: bool = False) -> int:
    """Replaces the batch norms of ``model`` in place; returns how many. 0 leaves all as they are.

    Call it after the model is on its device.

    Args:
        group: Images a group; 0 = the whole batch.
        domains: Whether each gets a branch for a source set.
    """
    if not group and not domains:
        return 0
    return _replace(model, group, DomainBatchNorm if domains else GroupedBatchNorm)


def ungroup(model: nn.Module) -> None:
    """Takes ``group_batch_norms`` back, keeping weights and statistics."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GroupedBatchNorm):
                setattr(parent, name, child.restore())


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Averages the batch statistics of ``batches`` (B, 3, H, W) into the running ones.

    Everything else of the model stays in evaluation mode (no dropout). A batch of one image has
    no variance and is left out.

    Returns:
        Number of batches used.
    """
    norms = list(batch_norms(model))
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    used = 0
    model.eval()
    try:
        for norm in norms:
            norm.train()
        for batch in batches:
            if len(batch) < 2:
                continue
            used += 1
            for norm in norms:
                norm.momentum = 1.0 / used
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)
    return used


def _group_sizes(count: int, group: int) -> list[int]:
    """Runs of ``group``; a single image left over has no statistics and joins the run before."""
    sizes = [group] * (count // group)
    left = count % group
    if left == 1 and sizes:
        sizes[-1] += 1
    elif left:
        sizes.append(left)
    return sizes


def _replace(parent: nn.Module, group: int, kind: type[GroupedBatchNorm]) -> int:
    count = 0
    for name, child in list(parent.named_children()):
        if isinstance(child, _BatchNorm) and child.track_running_stats:
            setattr(parent, name, kind(child, group))
            count += 1
        else:
            count += _replace(child, group, kind)
    return count
