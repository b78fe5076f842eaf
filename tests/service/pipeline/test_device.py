"""Isolation of bad images on the encoder's thread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.errors import ResightError
from service.pipeline.device import DeviceFailureError, encode_isolating


@given(bad=st.lists(st.booleans(), min_size=1, max_size=17))
def test_exactly_the_bad_images_fail(bad: list[bool]) -> None:
    calls = 0

    def encode(images: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if (images[:, 0, 0, 0] == 255).any():
            raise ValueError("bad")
        return images[:, 0, 0, :2].astype(np.float32)

    images = [np.full((1, 1, 3), 255 if b else n, np.uint8) for n, b in enumerate(bad)]
    outcomes = encode_isolating(encode, images)
    for number, (is_bad, outcome) in enumerate(zip(bad, outcomes, strict=True)):
        if is_bad:
            assert isinstance(outcome, ResightError)
        else:
            assert not isinstance(outcome, ResightError)
            assert outcome.tolist() == [number, number]
    assert calls <= 2 * len(bad)  # with the blank image when none succeeded


def test_a_vector_that_is_not_finite_is_an_error_of_its_image() -> None:
    def encode(images: np.ndarray) -> np.ndarray:
        vectors = np.ones((len(images), 2), np.float32)
        vectors[images[:, 0, 0, 0] == 9, 1] = np.nan
        return vectors

    outcomes = encode_isolating(encode, [np.full((1, 1, 3), n, np.uint8) for n in (1, 9)])
    assert not isinstance(outcomes[0], ResightError)
    assert isinstance(outcomes[1], ResightError)


def test_an_encoder_that_fails_on_a_blank_image_is_dead() -> None:
    def encode(images: np.ndarray) -> np.ndarray:
        raise MemoryError

    with pytest.raises(DeviceFailureError):
        encode_isolating(encode, [np.ones((1, 1, 3), np.uint8)])
