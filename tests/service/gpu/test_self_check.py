"""The check at start: an honest scanner passes, every sabotaged one is caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from resight.errors import FailedPrecondition
from service.gpu.device import Device
from service.gpu.scanner import Nearest, ScannerError
from service.gpu.self_check import selectors_honoured
from tests.service.gpu import scanners
from tests.service.gpu.scanners import BitmapSabotaged, NumpyScanner, Sabotaged, Spoil


@pytest.mark.parametrize("dimension", [16, 256, 512, 2048])
def test_an_honest_scanner_passes_at_every_dimension(dimension: int) -> None:
    scanner = NumpyScanner()
    assert selectors_honoured(scanner, dimension)
    assert not scanner.held, "the sample was not released"


@pytest.mark.parametrize("spoil", scanners.WRONG, ids=lambda spoil: spoil.__name__)
def test_wrong_answers_are_refused(spoil: Spoil) -> None:
    scanner = Sabotaged(spoil)
    with pytest.raises(FailedPrecondition, match="failed its check") as refused:
        selectors_honoured(scanner, 256)
    assert refused.value.reason == "GPU_SELF_CHECK_FAILED"
    assert not scanner.held


@pytest.mark.parametrize("change", scanners.BITMAPS, ids=lambda change: change.__name__)
def test_bitmaps_that_are_not_honoured_are_found_out(
    change: Callable[[np.ndarray], np.ndarray | None],
) -> None:
    assert not selectors_honoured(BitmapSabotaged(change), 256)


def test_a_scanner_that_fails_is_refused() -> None:
    def fail(found: object, rows: int) -> Nearest:
        raise ScannerError("the card fell off the bus")

    with pytest.raises(FailedPrecondition, match="fell off the bus"):
        selectors_honoured(Sabotaged(fail), 64)


def test_a_device_is_checked_before_it_is_there() -> None:
    with pytest.raises(FailedPrecondition):
        Device(lambda: Sabotaged(scanners.missing_best), dimension=64)
    device = Device(lambda: BitmapSabotaged(scanners.ignored), dimension=64)
    assert device.usable
    assert not device.selectors
    device.close()


def test_every_dimension_is_checked_once() -> None:
    class Narrow(NumpyScanner):
        """Wrong beyond 100 values."""

        def upload(self, vectors: np.ndarray) -> int:
            return super().upload(vectors[:, ::-1] if vectors.shape[1] > 100 else vectors)

    scanner = Narrow()
    device = Device(lambda: scanner, dimension=64)
    searches = scanner.searches
    device.check(64)
    assert scanner.searches == searches
    with pytest.raises(FailedPrecondition, match="failed its check"):
        device.check(128)
    device.close()
    assert not device.usable
