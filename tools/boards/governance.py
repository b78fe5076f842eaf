"""The board of access, audit, erasure and retention."""

# ruff: noqa: E501 -- a query is read best on one line

from __future__ import annotations

from tools.boards.vocabulary import JOB, Board, panel, rate

GOVERNANCE = Board(
    "resight-governance",
    "resight: governance",
    "Who was let in, what is recorded, and whether promises to erase and to forget are kept.",
    {
        "Access": (
            panel(
                "Credentials",
                "reqps",
                "By kind and outcome.",
                rate("resight_authentications_total", "kind, outcome"),
            ),
            panel(
                "Limits of callers reached",
                "reqps",
                "",
                rate("resight_rejected_total", "reason", JOB + ',reason=~"rate_limit|quota"'),
            ),
            panel(
                "Certificates expire in",
                "s",
                "Absent without TLS.",
                (
                    f"min by (certificate) (resight_tls_certificate_expiry_timestamp_seconds{{{JOB}}}) - time()",
                    "{{certificate}}",
                ),
                kind="stat",
                thresholds=((0.0, "red"), (1209600.0, "green")),
            ),
        ),
        "Audit": (
            panel("Entries", "ops", "By replica.", rate("resight_audit_entries_total", "instance")),
            panel(
                "Could not be written",
                "ops",
                "The calls were refused.",
                rate("resight_audit_write_failures_total", "instance"),
            ),
            panel(
                "Not signed yet",
                "none",
                "Entries that no checkpoint covers.",
                (f"resight_audit_unsigned_entries{{{JOB}}}", "{{instance}}"),
            ),
            panel(
                "Age of the oldest entry not signed",
                "s",
                "Bounded by audit.checkpoint_seconds.",
                (f"resight_audit_checkpoint_age_seconds{{{JOB}}}", "{{instance}}"),
            ),
        ),
        "Erasure and retention": (
            panel(
                "Erasures, 30 days",
                "none",
                "By outcome.",
                (
                    f"sum by (outcome) (increase(resight_erasures_total{{{JOB}}}[30d]))",
                    "{{outcome}}",
                ),
            ),
            panel(
                "Open",
                "none",
                "planned awaits a review.",
                (f"max by (state) (resight_erasure_open{{{JOB}}})", "{{state}}"),
            ),
            panel(
                "Unfinished since",
                "s",
                "Of the oldest confirmed erasure.",
                (f"max(resight_erasure_overdue_seconds{{{JOB}}})", "erasure"),
                kind="stat",
                thresholds=((0.0, "green"), (3600.0, "red")),
            ),
            panel(
                "Crops erased and dropped in a day",
                "none",
                "",
                (f"sum(increase(resight_erasure_crops_removed_total{{{JOB}}}[1d]))", "erased"),
                (
                    f"sum by (gallery) (increase(resight_retention_dropped_total{{{JOB}}}[1d]))",
                    "too old, {{gallery}}",
                ),
            ),
            panel(
                "Kept too long",
                "s",
                "Oldest crop beyond its retention.",
                (f"max(resight_retention_overdue_seconds{{{JOB}}})", "retention"),
                kind="stat",
                thresholds=((0.0, "green"), (21600.0, "red")),
            ),
            panel(
                "Images that outlive their crop",
                "s",
                "Oldest that waits for its removal.",
                (f"max(resight_image_removal_overdue_seconds{{{JOB}}})", "image"),
                kind="stat",
                thresholds=((0.0, "green"), (10800.0, "red")),
            ),
            panel(
                "Answered with a replica pending",
                "none",
                "",
                (f"sum(increase(resight_erasures_pending_total{{{JOB}}}[1d]))", "pending"),
                (f"sum(resight_erasures_replayed_total{{{JOB}}})", "erased again after a restore"),
            ),
        ),
    },
)
