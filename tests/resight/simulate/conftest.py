from __future__ import annotations

from pathlib import Path

import pytest

from resight.simulate.dataset import simulate
from resight.simulate.settings import SimulationSettings

SETTINGS = SimulationSettings(identities=24, cameras=4, crops=420, seed=3, train_share=0.25)


@pytest.fixture(scope="session")
def settings() -> SimulationSettings:
    return SETTINGS


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulation, drawn once in this process."""
    output = tmp_path_factory.mktemp("simulated") / "site"
    simulate(SETTINGS, output, workers=1)
    return output
