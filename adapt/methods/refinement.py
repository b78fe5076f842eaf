"""Pseudo-labels refined by parts and wholes of one another (Cho et al., CVPR 2022).

For a crop with one-hot label y over K classes, softmax predictions q_g of the whole and q_p of each
part p, and cross-agreements C(p):

AALS   L_p = C(p) CE(y, q_p) + (1 - C(p)) KL(u || q_p),   u = 1 / K
PGLR   L_g = CE(beta y + (1 - beta) sum over p of w_p q_p, q_g),   w = softmax over p of C(p)

Neither C nor the refined label carries gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["agreement_smoothing", "guided_refinement"]


def agreement_smoothing(logits: Tensor, classes: Tensor, agreement: Tensor) -> Tensor:
    """L_p, mean over batch and parts.

    Args:
        logits: (B, P, K) of the parts.
        classes: (B,) int64.
        agreement: (B, P) C.
    """
    log_q = logits.log_softmax(dim=2)
    chosen = classes[:, None, None].expand(-1, log_q.shape[1], 1)
    entropy = -log_q.gather(2, chosen)[:, :, 0]
    divergence = -math.log(log_q.shape[2]) - log_q.mean(dim=2)
    return (agreement * entropy + (1.0 - agreement) * divergence).mean()


def guided_refinement(
    logits: Tensor, part_logits: Tensor, classes: Tensor, agreement: Tensor, *, beta: float
) -> Tensor:
    """L_g, mean over the batch.

    Args:
        logits: (B, K) of the whole.
        part_logits: (B, P, K).
        classes: (B,) int64.
        agreement: (B, P) C.
        beta: Share of the one-hot label.
    """
    log_q = logits.log_softmax(dim=1)
    with torch.no_grad():
        weights = agreement.softmax(dim=1)
        ensemble = (weights[:, :, None] * part_logits.softmax(dim=2)).sum(dim=1)
    own = log_q.gather(1, classes[:, None])[:, 0]
    guided = (ensemble * log_q).sum(dim=1)
    return -(beta * own + (1.0 - beta) * guided).mean()
