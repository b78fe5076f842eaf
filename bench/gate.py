"""The gate on encoders of known mAP: how its score ranks them, and what it refuses.

::

    python -m bench gate --live LIVE --crops SRC --results F.jsonl [--maps MAPS.jsonl]
        [--spoilt] NAME=BUNDLE …
    python -m bench gate --results F.jsonl

The first judges each bundle that ``F.jsonl`` lacks beside LIVE and appends a line: name, mAP (the
``map`` of that name in ``MAPS.jsonl``, figures of ``resight adapt evaluate``; the gate never sees
them), score, verdict, reasons, signals. ``--spoilt`` marks bundles that must be refused. Both end
with the summary: Spearman's rank correlation of score and mAP over the healthy ones, and the same
of weights fitted on the other runs alone; pairs put in the right order; sabotage that passed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr

from adapt.gate.comparison import compare
from adapt.gate.observation import Observation, observe
from adapt.gate.sample import describe, draw
from adapt.gate.score import WEIGHED, score
from adapt.gate.settings import GateSettings
from resight.bundle.reader import open_bundle
from resight.crops import CropRef, open_source

_GAPS = (0.01, 0.02, 0.05)
_RIDGE = 10.0

Line = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench gate", description=__doc__)
    parser.add_argument("bundles", nargs="*", metavar="NAME=BUNDLE")
    parser.add_argument("--live", type=Path)
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--spoilt", action="store_true")
    options = parser.parse_args(argv)
    if options.bundles:
        if options.live is None or options.crops is None:
            parser.error("bundles are judged with --live and --crops")
        _judge(options)
    print(json.dumps(summary(_lines(options.results)), indent=2))
    return 0


def _lines(path: Path | None) -> list[Line]:
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _judge(options: argparse.Namespace) -> None:
    settings = GateSettings()
    maps = {line["name"]: line["map"] for line in _lines(options.maps)}
    done = {line["name"] for line in _lines(options.results)}
    crops = open_source(options.crops).scan().require_crops()
    refs = draw(crops, settings.sample, seed=settings.seed)
    live, kept = _embed(options.live, refs, settings)
    sample = describe(kept)
    for named in options.bundles:
        name, _, bundle = named.partition("=")
        if name in done:
            continue
        seen, _ = _embed(Path(bundle), kept, settings)
        found = compare(seen, live, None, sample, settings, threads=2)
        line = {
            "name": name,
            "spoilt": options.spoilt,
            "map": maps.get(name),
            "score": round(found.score, 4),
            "passed": not found.refusals,
            "reasons": list(found.refusals),
            "signals": {
                s.name: None if s.candidate is None else round(s.candidate, 5)
                for s in found.signals
            },
        }
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with options.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _embed(
    path: Path, refs: Sequence[CropRef], settings: GateSettings
) -> tuple[Observation, tuple[CropRef, ...]]:
    bundle = open_bundle(path, golden=False)
    seen = observe([bundle], refs, copies=settings.copies, seed=settings.seed)
    return seen.of[0], seen.kept


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """What the lines say together; a name is ``RUN`` or ``RUN@EPOCH``."""
    healthy = [line for line in lines if not line["spoilt"] and line["map"] is not None]
    spoilt = [line for line in lines if line["spoilt"]]
    maps = np.array([line["map"] for line in healthy])
    scores = np.array([line["score"] for line in healthy])
    runs = np.array([line["name"].partition("@")[0] for line in healthy])
    final = np.array(["@" not in line["name"] for line in healthy])
    # The score against each, not differences of scores against one: it clips.
    pairs = np.array(
        [[score(one["signals"], other["signals"]) for other in healthy] for one in healthy]
    )
    apart = maps[:, None] - maps[None]
    margin = GateSettings().margin
    return {
        "healthy": len(healthy),
        "runs": len(set(runs.tolist())),
        "spearman": _rank_correlation(scores, maps),
        "spearman_of_last_epochs": _rank_correlation(scores[final], maps[final]),
        "spearman_of_fitted_weights_leaving_a_run_out": _rank_correlation(
            _left_out(healthy, maps, runs), maps
        ),
        "pairs": {
            f"apart by more than {gap}": {
                "pairs": int((apart > gap).sum()),
                "in the right order": round(float((pairs[apart > gap] > 0).mean()), 4),
                "the worse one within the margin": round(
                    float((pairs.T[apart > gap] >= -margin).mean()), 4
                ),
            }
            for gap in _GAPS
        },
        "spoilt": len(spoilt),
        "spoilt_that_passed": [line["name"] for line in spoilt if line["passed"]],
    }


def _rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return round(float(spearmanr(one, other).statistic), 4)


def _left_out(
    lines: Sequence[Line], maps: NDArray[np.floating], runs: NDArray[Any]
) -> NDArray[np.float64]:
    """Scores by non-negative weights fitted on the log-odds of mAP of the other runs."""
    rows = np.array([_standardised(line["signals"]) for line in lines])
    odds = np.log(maps / (1 - maps))
    result = np.empty(len(lines))
    for run in set(runs.tolist()):
        inside = runs == run
        centred = rows[~inside] - rows[~inside].mean(axis=0)
        goal = odds[~inside] - odds[~inside].mean()
        pull = np.sqrt(_RIDGE) * np.eye(rows.shape[1])
        weights, _ = nnls(
            np.vstack([centred, pull]), np.concatenate([goal, np.zeros(rows.shape[1])])
        )
        result[inside] = rows[inside] @ (weights / weights.sum())
    return result


def _standardised(signals: Mapping[str, float | None]) -> list[float]:
    return [(signals[name] or 0.0) / weighed.scale for name, weighed in WEIGHED.items()]
