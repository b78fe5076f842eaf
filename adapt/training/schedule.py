"""Learning rate and number of iterations, as functions of the settings."""

from __future__ import annotations

import math

from adapt.training.config import RunConfig

__all__ = ["iterations_per_epoch", "learning_rate", "warmup_steps"]


def iterations_per_epoch(config: RunConfig, crops: int) -> int:
    """``iterations`` if set, else ``passes`` over ``crops`` within the configured bounds."""
    if config.iterations is not None:
        return config.iterations
    wanted = math.ceil(config.passes * crops / (config.p * config.k))
    return max(config.min_iterations, min(wanted, config.max_iterations))


def warmup_steps(config: RunConfig, iterations: int) -> int:
    """``warmup_iterations`` or ``warmup_epochs`` of ``iterations``, whichever is longer."""
    return max(config.warmup_iterations, config.warmup_epochs * iterations)


def learning_rate(config: RunConfig, step: int, iterations: int) -> float:
    """Rate of optimiser step ``step`` (from 0) when an epoch has ``iterations``.

    Linear warm-up over the first ``warmup_steps``, times a staircase by epoch, half a cosine over
    the whole run, or nothing.
    """
    factor = 1.0
    if config.schedule == "step":
        factor = config.step_factor ** (step // iterations // config.step_epochs)
    elif config.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * step / max(1, config.epochs * iterations)))
    warmup = warmup_steps(config, iterations)
    if step < warmup:
        factor *= (step + 1) / warmup
    return config.lr * factor
