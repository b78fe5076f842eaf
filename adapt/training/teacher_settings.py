"""Settings of the teacher, which any method may have."""

from __future__ import annotations

from pydantic import Field

from adapt.training.section import Section

__all__ = ["TeacherSettings"]


class TeacherSettings(Section):
    """What ``adapt.training.teacher`` may be told.

    Attributes:
        weight: Share of the soft targets in the loss; 0 = no teacher.
        decay: Of the average that the teacher is.
        temperature: Divides the logits of both beside the method's own temperature.
        second_augmentation: Whether the teacher sees the crops augmented otherwise.
        triplet: Weight of the soft triplet within the soft targets.
    """

    weight: float = Field(default=0.0, ge=0, le=1)
    decay: float = Field(default=0.999, gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0, le=100)
    second_augmentation: bool = True
    triplet: float = Field(default=0.0, ge=0, le=100)
