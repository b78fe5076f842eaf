"""The board of the nights and their models."""

# ruff: noqa: E501 -- a query is read best on one line

from __future__ import annotations

from tools.boards.vocabulary import JOB, OURS, Board, newest, panel, quantile, rate

ADAPTATION = Board(
    "resight-adaptation",
    "resight: adaptation",
    "Whether the nights run, what the gate says of them, and what became of their models.",
    {
        "Nights": (
            panel(
                "Since the last success",
                "s",
                "Above 26 h with crops coming: an alert.",
                (
                    f"time() - max by (gallery) (resight_adaptation_last_success_timestamp_seconds{{{OURS}}})",
                    "{{gallery}}",
                ),
                kind="stat",
                thresholds=((0.0, "green"), (93600.0, "red")),
            ),
            panel(
                "Since the last attempt",
                "s",
                "Large: the job does not run.",
                (
                    f"time() - max by (gallery) (resight_adaptation_last_attempt_timestamp_seconds{{{OURS}}})",
                    "{{gallery}}",
                ),
                kind="stat",
            ),
            panel(
                "Last outcome",
                "none",
                "1 for what became of the last night.",
                newest("resight_adaptation_last_outcome", "gallery, outcome"),
                kind="stat",
            ),
            panel(
                "Running",
                "none",
                "1 while a night holds the lease.",
                newest("resight_adaptation_lease_held", "gallery"),
            ),
            panel(
                "Duration",
                "s",
                "Of the last night.",
                newest("resight_adaptation_duration_seconds", "gallery"),
            ),
            panel(
                "Nights of a week by outcome",
                "none",
                "",
                (
                    f"sum by (gallery, outcome) (increase(resight_adaptation_runs_total{{{OURS}}}[7d]))",
                    "{{gallery}} {{outcome}}",
                ),
            ),
        ),
        "Gate and training": (
            panel(
                "Score against the live encoder",
                "none",
                "Above 0 is better.",
                newest("resight_adaptation_gate_score", "gallery"),
            ),
            panel(
                "Score against the frozen baseline",
                "none",
                "Falling: a chain of small losses.",
                newest("resight_adaptation_gate_baseline_score", "gallery"),
            ),
            panel(
                "Verdict",
                "none",
                "1 for what the gate said last.",
                newest("resight_adaptation_gate_result", "gallery, verdict"),
            ),
            panel(
                "Clusters",
                "none",
                "Of the last epoch: as many people, by the training's guess.",
                newest("resight_adaptation_clusters", "gallery"),
            ),
            panel(
                "Outliers",
                "percentunit",
                "Share of the crops in no cluster.",
                newest("resight_adaptation_outlier_share", "gallery"),
            ),
            panel(
                "Crops used in a day",
                "none",
                "new, and replay of older ones.",
                (
                    f"sum by (gallery, use) (increase(resight_adaptation_crops_used_total{{{OURS}}}[1d]))",
                    "{{gallery}} {{use}}",
                ),
                (
                    f"sum by (outcome) (increase(resight_adaptation_crops_streamed_total{{{JOB}}}[1d]))",
                    "streamed {{outcome}}",
                ),
            ),
        ),
        "Models": (
            panel(
                "Live models",
                "none",
                "Replicas by version, precision and provider.",
                (
                    f"count by (model_version, precision, provider) (resight_model_info{{{JOB}}})",
                    "{{model_version}} {{precision}} {{provider}}",
                ),
            ),
            panel(
                "Overlap of the first ten with the second model",
                "percentunit",
                "Mean over an hour.",
                (
                    f"sum by (gallery, role) (rate(resight_mirror_overlap_sum{{{OURS}}}[1h])) / sum by (gallery, role) (rate(resight_mirror_overlap_count{{{OURS}}}[1h]))",
                    "{{gallery}} {{role}}",
                ),
            ),
            panel(
                "Best score, median",
                "none",
                "By role; the scales differ.",
                (
                    quantile(0.5, "resight_mirror_best_score", "gallery, role", OURS),
                    "{{gallery}} {{role}}",
                ),
            ),
            panel(
                "Changes of models",
                "none",
                "",
                (
                    f"sum by (gallery, change, actor) (resight_model_changes_total{{{OURS}}})",
                    "{{gallery}} {{change}} by {{actor}}",
                ),
            ),
            panel(
                "Filling of a shadow",
                "ops",
                "Vectors a second, and why not.",
                rate("resight_model_filled_crops_total", "gallery, outcome", OURS),
            ),
            panel(
                "Fallbacks",
                "none",
                "Sessions on another device than asked for.",
                (
                    f"sum by (instance, asked, got) (resight_provider_fallback_total{{{JOB}}})",
                    "{{instance}} {{asked}} to {{got}}",
                ),
            ),
        ),
    },
    by_gallery=True,
    since="now-7d",
)
