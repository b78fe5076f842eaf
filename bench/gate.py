"""The gate on encoders of known mAP: how its score ranks them, and what it refuses.

::

    python -m bench gate --live LIVE --crops SRC --results F.jsonl [--maps MAPS.jsonl]
        [--spoilt | --unseen [--round N]] [--any-dimension] NAME=BUNDLE …
    python -m bench gate --results F.jsonl --live-name NAME [--rescore] [--signals S.jsonl]

The first judges each bundle that ``F.jsonl`` lacks beside LIVE and appends a line: name, mAP (the
``map`` of that name in ``MAPS.jsonl``, figures of ``resight adapt evaluate``; the gate never sees
them), score, verdict, reasons, signals. ``--spoilt`` marks bundles that must be refused,
``--unseen`` those made after signals, scales and bounds were fixed; ``--round`` tells which fixing.
``--any-dimension`` lets encoders of another dimension be compared; they are summed up apart.

``--rescore`` judges lines of an older score again from their signals: scores and the refusals that
follow from them are replaced, others stay.

Both end with the summary: Spearman's rank correlation of score and mAP over the healthy ones, those
of each round apart; pairs put in the right order; verdicts beside the truth (where NAME, the live
encoder, has a line); sabotage that passed. S.jsonl holds signals and mAP of the encoders that the
scales come from, NAME among them: of these the score is computed as it is, with scales fitted again
without the run that is scored, and with weights fitted so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr

from adapt.gate.comparison import compare, weigh
from adapt.gate.observation import Observation, observe
from adapt.gate.sample import describe, draw
from adapt.gate.score import BOUND, WATCHED, WEIGHED, score
from adapt.gate.settings import GateSettings
from resight.bundle.reader import open_bundle
from resight.crops import CropRef, open_source

_GAPS = (0.01, 0.02, 0.05)
_RIDGE = 10.0
_DIMENSION = 512

Line = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench gate", description=__doc__)
    parser.add_argument("bundles", nargs="*", metavar="NAME=BUNDLE")
    parser.add_argument("--live", type=Path)
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--signals", type=Path)
    parser.add_argument("--live-name")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--spoilt", action="store_true")
    kind.add_argument("--unseen", action="store_true")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--any-dimension", action="store_true")
    parser.add_argument("--rescore", action="store_true")
    options = parser.parse_args(argv)
    if options.bundles:
        if options.live is None or options.crops is None:
            parser.error("bundles are judged with --live and --crops")
        _judge(options)
    lines = _lines(options.results)
    live = next((line for line in lines if line["name"] == options.live_name), None)
    if options.rescore:
        if live is None:
            parser.error("--rescore needs --live-name, of a line of the results")
        lines = [rescored(line, live["signals"]) for line in lines]
        options.results.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    found = summary(lines, None if live is None else live["map"])
    if options.signals is not None:
        spoilt = {line["name"] for line in lines if line["spoilt"]}
        fitted_on = [line for line in _lines(options.signals) if line["name"] not in spoilt]
        found["fitted_on"] = calibration(fitted_on, options.live_name)
    print(json.dumps(found, indent=2))
    return 0


def _lines(path: Path | None) -> list[Line]:
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _judge(options: argparse.Namespace) -> None:
    settings = GateSettings(same_dimension=not options.any_dimension)
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
            "unseen": options.unseen,
            "round": options.round if options.unseen else 0,
            "dimension": seen.features.shape[1],
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


def rescored(line: Line, live: Line) -> Line:
    """The line judged again from its signals and the live encoder's."""
    if not line["signals"]:
        return line
    found, reasons = weigh(line["signals"], live, GateSettings())
    by_figures = {"live", *WEIGHED, *WATCHED}
    reasons += [text for text in line["reasons"] if text.partition(":")[0] not in by_figures]
    return line | {"score": round(found, 4), "passed": not reasons, "reasons": reasons}


def summary(lines: Sequence[Line], live: float | None = None) -> dict[str, Any]:
    """What the lines say together; a name is ``RUN`` or ``RUN@EPOCH``.

    Args:
        lines: Of the results.
        live: The live encoder's mAP, where it is known.
    """
    healthy = [line for line in lines if not line["spoilt"] and line["map"] is not None]
    spoilt = [line for line in lines if line["spoilt"]]
    same = [line for line in healthy if line.get("dimension", _DIMENSION) == _DIMENSION]
    unseen = [line for line in same if line.get("unseen", False)]
    rounds = [line.get("round", 1) for line in unseen]
    parts = {
        "seen": [line for line in same if line not in unseen],
        "unseen": unseen,
        **{
            f"unseen, round {number}": [
                line for line, own in zip(unseen, rounds, strict=True) if own == number
            ]
            for number in sorted(set(rounds))
        },
        "all": same,
        "another dimension": [line for line in healthy if line not in same],
    }
    found: dict[str, Any] = {
        part: _ranked(chosen, live) for part, chosen in parts.items() if len(chosen) > 1
    }
    found["spoilt"] = len(spoilt)
    found["spoilt_that_passed"] = [line["name"] for line in spoilt if line["passed"]]
    return found


def calibration(lines: Sequence[Line], live: str) -> dict[str, Any]:
    """The score on the encoders its scales come from, and what it is without a run's own part.

    Args:
        lines: Name, mAP and the weighed signals of each healthy encoder.
        live: Name of the one that the others are compared with.
    """
    maps = np.array([line["map"] for line in lines])
    runs = _runs(lines)
    rows = np.array([[line[name] for name in WEIGHED] for line in lines])
    at = [line["name"] for line in lines].index(live)
    fixed = np.array([weighed.scale for weighed in WEIGHED.values()])
    again = np.array([rows[runs != run].std(axis=0) for run in runs])
    return {
        "healthy": len(lines),
        "runs": len(set(runs.tolist())),
        "spearman": _rank_correlation(_scores(rows, rows[at], fixed), maps),
        "spearman_of_scales_fitted_leaving_a_run_out": _rank_correlation(
            _scores(rows, rows[at], again), maps
        ),
        "spearman_of_weights_fitted_leaving_a_run_out": _rank_correlation(
            _left_out(rows / fixed, maps, runs), maps
        ),
    }


def _ranked(lines: Sequence[Line], live: float | None) -> dict[str, Any]:
    maps = np.array([line["map"] for line in lines])
    scores = np.array([line["score"] for line in lines])
    final = np.array(["@" not in line["name"] for line in lines])
    # The score against each, not differences of scores against one: it clips.
    pairs = np.array(
        [[score(one["signals"], other["signals"]) for other in lines] for one in lines]
    )
    apart = maps[:, None] - maps[None]
    margin = GateSettings().margin
    return {
        "healthy": len(lines),
        "runs": len(set(_runs(lines).tolist())),
        "spearman": _rank_correlation(scores, maps),
        "spearman_of_last_epochs": _rank_correlation(scores[final], maps[final]),
        "passed": sum(bool(line["passed"]) for line in lines),
        **({} if live is None else _beside_the_truth(lines, live)),
        "pairs": {
            f"apart by more than {gap}": {
                "pairs": int((apart > gap).sum()),
                "in the right order": round(float((pairs[apart > gap] > 0).mean()), 4),
                "the worse one within the margin": round(
                    float((pairs.T[apart > gap] >= -margin).mean()), 4
                ),
            }
            for gap in _GAPS
            if (apart > gap).any()
        },
    }


def _beside_the_truth(lines: Sequence[Line], live: float) -> dict[str, Any]:
    gained = {line["name"]: round(line["map"] - live, 4) for line in lines}
    passed = {line["name"] for line in lines if line["passed"]}
    return {
        "passed though worse": {n: gap for n, gap in gained.items() if n in passed and gap < 0},
        "refused though better": {
            n: gap for n, gap in gained.items() if n not in passed and gap > 0
        },
    }


def _runs(lines: Sequence[Line]) -> NDArray[Any]:
    return np.array([line["name"].partition("@")[0] for line in lines])


def _rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return round(float(spearmanr(one, other).statistic), 4)


def _scores(
    rows: NDArray[np.float64], live: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``adapt.gate.score.score`` of rows of signals, with other scales."""
    found: NDArray[np.float64] = np.clip((rows - live) / scales, -BOUND, BOUND).mean(axis=1)
    return found


def _left_out(
    rows: NDArray[np.float64], maps: NDArray[np.floating], runs: NDArray[Any]
) -> NDArray[np.float64]:
    """Scores by non-negative weights fitted on the log-odds of mAP of the other runs."""
    odds = np.log(maps / (1 - maps))
    result = np.empty(len(rows))
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
