"""A teacher: soft targets from the averaged twin of the encoder, beside any method's loss.

In the manner of MMT (Ge, Chen and Li, ICLR 2020), with one network and its average where MMT has
two and two. With z the method's logits, x and x' two augmentations of the same crops:

    theta' <- d theta' + (1 - d) theta            after every step (adapt.training.averaging)
    s = z(f_theta(x)),  t = z(f_theta'(x'))       no gradient through t
    L_soft = -T^2 mean over the batch of sum_c softmax_c(t / T) log softmax_c(s / T)
    q_a = exp(d_n) / (exp(d_p) + exp(d_n))        d_p, d_n: distances of anchor a to its farthest
                                                  crop of its class, its nearest of another one
    L_tri = -mean over anchors of q'_a log q_a + (1 - q'_a) log(1 - q_a)
    L = (1 - w) L_method + w (L_soft + v L_tri)

The pairs of L_tri are chosen by the student, q' is the teacher's of the same pairs; distances are
Euclidean between features that are not normalised. T = 1 is MMT's; T^2 keeps the gradient's size
(Hinton et al., 2015). MMT's own weights are w = .5 and w v = .8.

Intended deviations: one network teaches itself; where a method has heads they are the student's for
both; the hard triplet (MMT's .2) is left out; the distances are of the neck's output; an anchor
without another crop of its class in the batch, or without one of another class, is left out of
L_tri. The decay starts low and the batch-norm statistics are averaged like the weights
(``averaging``), and those are what the twin clusters and is exported with; but when it teaches it
normalises as the student does: by the statistics of its batch in the same groups (as MMT's, whose
twins stay in train mode), its running ones untouched. A target that differed by its normalisation
too would teach that. With ``freeze_bn`` both normalise by running statistics. Dropout is off in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.methods.method import Batch, Method
from adapt.methods.triplet import hardest_pairs, pair_distances
from adapt.training.batch_norm import batch_norms
from adapt.training.teacher_settings import TeacherSettings

__all__ = ["batch_statistics", "soft_cross_entropy", "soft_target_loss", "soft_triplet"]


def soft_target_loss(
    method: Method, student: Batch, teacher: Batch, settings: TeacherSettings
) -> Tensor:
    """L_soft + v L_tri of one batch seen by both; scalar, with gradient to the student alone."""
    with torch.no_grad():
        targets = method.logits(teacher)
    loss = soft_cross_entropy(method.logits(student), targets, settings.temperature)
    if settings.triplet:
        pull = soft_triplet(student.raw, teacher.raw, student.classes)
        loss = loss + settings.triplet * pull
    return loss


def soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """L_soft of the student's ``logits`` and the teacher's ``targets``, both (B, C)."""
    wanted = functional.softmax(targets / temperature, dim=1)
    return functional.cross_entropy(logits / temperature, wanted) * temperature**2


def soft_triplet(features: Tensor, reference: Tensor, classes: Tensor) -> Tensor:
    """L_tri of the student's ``features`` and the teacher's ``reference``, both (B, D).

    Args:
        classes: (B,) int64.
    """
    same = classes[:, None] == classes[None, :]
    itself = torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    partners, others = same & ~itself, ~same
    anchors = (partners.any(dim=1) & others.any(dim=1)).nonzero().squeeze(1)
    if not len(anchors):
        return features.sum() * 0.0
    far, near = hardest_pairs(features, partners, others)
    pairs = (anchors, far[anchors], near[anchors])
    wanted = functional.softmax(_distances(reference.detach(), pairs), dim=1)
    return functional.cross_entropy(_distances(features, pairs), wanted)


def _distances(features: Tensor, pairs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """(d_p, d_n) of each anchor, (A, 2)."""
    anchors, far, near = (features[index] for index in pairs)
    return torch.stack([pair_distances(anchors, far), pair_distances(anchors, near)], dim=1)


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms of ``model`` normalise by their batch and leave their running values alone."""
    norms = list(batch_norms(model))
    kept = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (training, momentum) in zip(norms, kept, strict=True):
            norm.train(training)
            norm.momentum = momentum
