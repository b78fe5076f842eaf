"""The settings of a camera's stage of CALR, made from those of its run."""

from __future__ import annotations

from adapt.training.config import RunConfig
from adapt.training.schedule import warmup_steps

__all__ = ["of_a_camera"]


def of_a_camera(config: RunConfig) -> RunConfig:
    """The run's settings but for those that stage 1 has of its own."""
    own = config.calr
    warmup = warmup_steps(config, own.intra_iterations)
    covered = warmup >= own.intra_epochs * own.intra_iterations
    return config.model_copy(
        update={
            "epochs": own.intra_epochs,
            "iterations": own.intra_iterations,
            "p": own.intra_p,
            "k": own.intra_k,
            # A stage that is all warm-up would never train at the rate it was given.
            "warmup_iterations": 0 if covered else config.warmup_iterations,
            "warmup_epochs": 0 if covered else config.warmup_epochs,
            # No twin and no teacher; compiling for each camera would cost more than it saves.
            "ema": 0.0,
            "teacher": config.teacher.model_copy(update={"weight": 0.0}),
            "compile": False,
        }
    )
