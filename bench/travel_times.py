"""Travel times learned from a simulated site, beside those that its people took.

    python -m bench travel-times --onnx osnet_x0_25_msmt17.onnx [--identities 400] [--cameras 4]
        [--crops 6400] [--seed 7] [--json]

The site is drawn, its crops are embedded with the given encoder, which has seen none of it, and the
times are learned as the service does without a calibration. Whom a crop shows is used for the
truth alone: the seconds between a person's visits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.serving import import_bundle
from resight.bundle import open_bundle
from resight.crops import prepare
from resight.simulate.camera import cameras
from resight.simulate.dataset import simulate
from resight.simulate.schedule import BYSTANDERS, Shot, schedule
from resight.simulate.settings import SimulationSettings
from service.encoder.onnx import OnnxEncoder
from service.retrieval.travel_times import learned, tracks_of
from service.settings import TravelTimeSettings

BATCH = 16


def embedded(onnx: Path, site: Path, shots: Sequence[Shot], folder: Path) -> NDArray[np.float32]:
    """A vector of each shot."""
    encoder = OnnxEncoder(open_bundle(import_bundle(onnx, folder)), threads=1)
    parts = []
    for start in range(0, len(shots), BATCH):
        images = [
            prepare((site / shot.split / shot.name).read_bytes(), encoder.preprocessing)
            for shot in shots[start : start + BATCH]
        ]
        parts.append(encoder.embed(np.stack(images)))
    return np.concatenate(parts)


def true_seconds(shots: Sequence[Shot]) -> dict[tuple[str, str], list[float]]:
    """Seconds between a person's visits, by pair of cameras."""
    visits: dict[tuple[int, int], dict[int, list[Shot]]] = {}
    for shot in shots:
        if shot.person >= 0 and shot.crowd != BYSTANDERS:
            visits.setdefault((shot.crowd, shot.person), {}).setdefault(shot.visit, []).append(shot)
    found: dict[tuple[str, str], list[float]] = {}
    for own in visits.values():
        ways = sorted(own.values(), key=lambda visit: min(shot.frame for shot in visit))
        for number in range(1, len(ways)):
            one, other = ways[number - 1], ways[number]
            seconds = min(s.capture_time for s in other) - max(s.capture_time for s in one)
            pair = f"c{one[0].camera}", f"c{other[0].camera}"
            if pair[0] != pair[1]:
                found.setdefault(pair, []).append(seconds.total_seconds())
    return found


def measure(
    shots: Sequence[Shot], vectors: NDArray[np.float32], *, with_tracks: bool
) -> dict[str, Any]:
    """What was learned, and how many true hops it would call impossible or late."""
    settings = TravelTimeSettings()
    first = min(shot.capture_time for shot in shots)
    tracks = tracks_of(
        [f"c{shot.camera}" for shot in shots],
        [shot.track if with_tracks else "" for shot in shots],
        np.array([round(1e6 * (shot.capture_time - first).total_seconds()) for shot in shots]),
        vectors,
        horizon_seconds=settings.horizon_seconds,
        most=settings.max_tracks,
    )
    found = learned(
        tracks,
        horizon_seconds=settings.horizon_seconds,
        min_hops=settings.min_matches,
        lowest_score=None,
        score_quantile=settings.score_quantile,
    )
    truth, pairs = true_seconds(shots), []
    for pair in found.pairs:
        hops = np.array(truth.get((pair.from_camera_id, pair.to_camera_id), []))
        time = pair.time
        pairs.append(
            {
                "pair": f"{pair.from_camera_id} {pair.to_camera_id}",
                "matches": pair.matches,
                "learned": time and [time.min_seconds, time.typical_seconds, time.max_seconds],
                "hops": len(hops),
                "took": [hops.min(), float(np.median(hops)), hops.max()] if len(hops) else None,
                "impossible": int((hops < time.min_seconds).sum()) if time else 0,
                "late": int((hops > time.max_seconds).sum()) if time else 0,
            }
        )
    return {"tracks": len(tracks.cameras), "pairs": pairs}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--identities", type=int, default=400)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--crops", type=int, default=6400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    chosen = SimulationSettings(
        identities=options.identities,
        cameras=options.cameras,
        crops=options.crops,
        seed=options.seed,
    )
    shots = schedule(chosen, cameras(chosen.seed, chosen.cameras, spread=0.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(chosen, folder / "site")
        vectors = embedded(options.onnx, folder / "site", shots, folder)
    found = {
        "with tracks": measure(shots, vectors, with_tracks=True),
        "without tracks": measure(shots, vectors, with_tracks=False),
    }
    if options.json:
        print(json.dumps(found))
        return
    for title, result in found.items():
        print(f"{title}: {result['tracks']} tracks")
        for pair in result["pairs"]:
            print("  " + ", ".join(f"{key} {_told(value)}" for key, value in pair.items()))
        for name in ("hops", "impossible", "late"):
            print(f"  {name} together: {sum(pair[name] for pair in result['pairs'])}")


def _told(value: Any) -> str:
    return " / ".join(f"{part:.0f}" for part in value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
