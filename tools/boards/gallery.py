"""The board of the galleries."""

# ruff: noqa: E501 -- a query is read best on one line

from __future__ import annotations

from tools.boards.vocabulary import BAD_AT_1, JOB, OURS, Board, newest, panel, quantile, rate

GALLERY = Board(
    "resight-gallery",
    "resight: galleries",
    "What the galleries hold, what comes in, what is found, and whether cameras still see as they did.",
    {
        "What is there": (
            panel(
                "Crops that can be found",
                "short",
                "Every replica has them all.",
                newest("resight_gallery_vectors", "gallery, model_version"),
            ),
            panel(
                "Index",
                "bytes",
                "memory: live model. memory_beside: shadow and previous. device: GPU.",
                newest("resight_gallery_bytes", "gallery, tier"),
            ),
            panel(
                "Removed rows that still take room",
                "short",
                "Until they are compacted away.",
                newest("resight_gallery_tombstones", "gallery"),
            ),
            panel(
                "Refuses calls",
                "none",
                "1: a model of it does not run on some replica.",
                newest("resight_gallery_unready", "gallery, refuses"),
                thresholds=BAD_AT_1,
            ),
            panel(
                "Index lag",
                "s",
                "Oldest crop that is stored and not found yet, by replica.",
                (f"resight_index_lag_seconds{{{JOB}}}", "{{instance}}"),
            ),
            panel(
                "Index files",
                "ops",
                "failed, behind: the next start is slower.",
                rate("resight_index_writes_total", "outcome"),
            ),
        ),
        "Ingest": (
            panel(
                "Stored by gallery",
                "ops",
                "Crops acknowledged.",
                rate("resight_crops_stored_total", "gallery", OURS),
            ),
            panel(
                "Offered by outcome",
                "ops",
                "rejected is lost, retry comes again.",
                rate("resight_ingested_total", "outcome"),
            ),
            panel(
                "Not stored",
                "percentunit",
                "Share of the crops offered.",
                (f"resight:ingest_failures:ratio_rate15m{{{JOB}}}", "{{job}}"),
                thresholds=((0.0, "green"), (0.05, "red")),
            ),
        ),
        "Search": (
            panel(
                "Searches by mode",
                "reqps",
                "Both are exact; gather: narrow filters.",
                rate("resight_search_mode_total", "mode"),
            ),
            panel(
                "Rows compared with a query, mean",
                "short",
                "",
                (
                    f"sum(rate(resight_search_rows_scanned_sum{{{JOB}}}[5m])) / sum(rate(resight_search_rows_scanned_count{{{JOB}}}[5m]))",
                    "rows",
                ),
            ),
            panel(
                "Filter, search, re-rank: 95th percentile",
                "s",
                "",
                (
                    quantile(
                        0.95,
                        "resight_stage_duration_seconds",
                        "stage",
                        JOB + ',stage=~"filter|search|rerank"',
                    ),
                    "{{stage}}",
                ),
            ),
        ),
        "Drift of cameras": (
            panel(
                "Shift of the mean",
                "none",
                "In units of a camera's spread, over cameras; above 0.5 look.",
                newest("resight_drift_shift", "gallery, quantile"),
                thresholds=((0.0, "green"), (0.5, "red")),
            ),
            panel(
                "Crops unlike what the camera saw",
                "percentunit",
                "0.05 without drift.",
                newest("resight_drift_low_match_share", "gallery, quantile"),
                thresholds=((0.0, "green"), (0.3, "red")),
            ),
            panel(
                "Cameras",
                "none",
                "too_few: not enough tracks to say anything.",
                newest("resight_drift_cameras", "gallery, state"),
            ),
            panel(
                "Worst cameras by shift",
                "none",
                "Only with metrics.camera_labels.",
                (
                    f"topk(5, max by (gallery, camera) (resight_camera_drift_shift{{{OURS}}}))",
                    "{{gallery}} {{camera}}",
                ),
            ),
        ),
    },
    by_gallery=True,
)
