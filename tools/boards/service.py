"""The board of the service: answers, their speed, and what holds them up."""

# ruff: noqa: E501 -- a query is read best on one line

from __future__ import annotations

from tools.boards.vocabulary import JOB, Board, panel, quantile, rate

SERVICE = Board(
    "resight-service",
    "resight: service",
    "Whether callers get answers, how fast, and what holds them up.",
    {
        "Service levels": (
            panel(
                "Ready",
                "none",
                "Replicas that answer.",
                (f"sum(resight_ready{{{JOB}}})", "ready"),
                (f"count(resight_ready{{{JOB}}})", "scraped"),
                kind="stat",
            ),
            panel(
                "Calls without a fault of ours, 3 days",
                "percentunit",
                "Objective: 99.9 %.",
                (f"1 - resight:request_errors:ratio_rate3d{{{JOB}}}", "{{job}}"),
                kind="stat",
                thresholds=((0.0, "red"), (0.999, "green")),
            ),
            panel(
                "Searches within 0.41 s, 3 days",
                "percentunit",
                "Objective: 99 %.",
                (f"1 - resight:slow_searches:ratio_rate3d{{{JOB}}}", "{{job}}"),
                kind="stat",
                thresholds=((0.0, "red"), (0.99, "green")),
            ),
            panel(
                "Burn of the availability budget",
                "none",
                "1 uses it up within the month; 14.4 pages.",
                (f"resight:request_errors:ratio_rate5m{{{JOB}}} / 0.001", "5 min"),
                (f"resight:request_errors:ratio_rate1h{{{JOB}}} / 0.001", "1 h"),
                (f"resight:request_errors:ratio_rate6h{{{JOB}}} / 0.001", "6 h"),
            ),
            panel(
                "Burn of the latency budget",
                "none",
                "1 uses it up within the month; 14.4 pages.",
                (f"resight:slow_searches:ratio_rate5m{{{JOB}}} / 0.01", "5 min"),
                (f"resight:slow_searches:ratio_rate1h{{{JOB}}} / 0.01", "1 h"),
                (f"resight:slow_searches:ratio_rate6h{{{JOB}}} / 0.01", "6 h"),
            ),
            panel(
                "Faults of ours by method and code",
                "reqps",
                "What burns the budget.",
                rate(
                    "resight_requests_total",
                    "method, code",
                    JOB + ',code=~"INTERNAL|UNAVAILABLE|UNKNOWN|DATA_LOSS|DEADLINE_EXCEEDED|5.."',
                ),
            ),
        ),
        "Calls": (
            panel(
                "Calls by method", "reqps", "All of them.", rate("resight_requests_total", "method")
            ),
            panel(
                "Duration, 99th percentile",
                "s",
                "By method; points are requests (exemplars).",
                (quantile(0.99, "resight_request_duration_seconds", "method"), "{{method}}"),
                exemplars=True,
            ),
            panel(
                "Duration, median",
                "s",
                "By method.",
                (quantile(0.5, "resight_request_duration_seconds", "method"), "{{method}}"),
            ),
            panel(
                "Being answered",
                "none",
                "Calls begun and not ended, streams included.",
                (f"sum by (protocol) (resight_inflight_requests{{{JOB}}})", "{{protocol}}"),
            ),
            panel(
                "Refused before any work",
                "reqps",
                "Queues, deadlines, limits of callers.",
                rate("resight_rejected_total", "reason"),
            ),
            panel(
                "Abandoned",
                "reqps",
                "The caller left before the stage began.",
                rate("resight_abandoned_total", "stage"),
            ),
        ),
        "Where the time goes": (
            panel(
                "Stages, 95th percentile",
                "s",
                "queue above embed: more load than the encoder takes.",
                (quantile(0.95, "resight_stage_duration_seconds", "stage"), "{{stage}}"),
                exemplars=True,
            ),
            panel(
                "Waiting",
                "none",
                "Images for the encoder, re-rankings for their thread.",
                (f"sum by (queue) (resight_queue_depth{{{JOB}}})", "{{queue}}"),
            ),
            panel(
                "Images in a batch, mean",
                "none",
                "1: idle. The maximum: it is the bottleneck.",
                (f"resight:batch_size:mean_rate5m{{{JOB}}}", "{{job}}"),
            ),
            panel(
                "Wait for a batch, 95th percentile",
                "s",
                "Of the image that waited longest.",
                (quantile(0.95, "resight_batch_wait_seconds", "instance"), "{{instance}}"),
            ),
            panel(
                "Event loop lag, 99th percentile",
                "s",
                "Every call waits for it.",
                (quantile(0.99, "resight_event_loop_lag_seconds", "instance"), "{{instance}}"),
            ),
            panel(
                "Batches that failed",
                "ops",
                "Images on which the encoder fails.",
                rate("resight_batch_failures_total", "instance"),
            ),
        ),
        "Process, disk, database": (
            panel("CPU", "none", "Cores in use.", rate("process_cpu_seconds_total", "instance")),
            panel(
                "Memory",
                "bytes",
                "Resident.",
                (f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),
            ),
            panel(
                "Disk free",
                "percentunit",
                "Of the data directory's file system.",
                (f"resight:data_directory_free:ratio{{{JOB}}}", "{{instance}}"),
                thresholds=((0.0, "red"), (0.03, "orange"), (0.1, "green")),
            ),
            panel(
                "Commits",
                "ops",
                "A commit takes every change that waits.",
                rate("resight_database_commits_total", "instance"),
            ),
            panel(
                "Changes waiting, connections in use",
                "none",
                "At its bound a change is refused.",
                (
                    f"max by (instance) (resight_database_pending_writes{{{JOB}}})",
                    "waiting {{instance}}",
                ),
                (
                    f"sum by (instance, pool) (resight_database_connections_in_use{{{JOB}}})",
                    "{{pool}} {{instance}}",
                ),
            ),
            panel(
                "Database errors",
                "ops",
                "Answered UNAVAILABLE.",
                rate("resight_database_errors_total", "instance"),
            ),
        ),
        "Replicas": (
            panel(
                "Live",
                "none",
                "As each replica sees it.",
                (f"resight_replicas_live{{{JOB}}}", "{{instance}}"),
            ),
            panel(
                "Behind the others, 95th percentile",
                "s",
                "What one stored and another finds.",
                (quantile(0.95, "resight_replica_lag_seconds", "instance"), "{{instance}}"),
            ),
            panel(
                "Heartbeats and follows that failed",
                "ops",
                "It is fenced off when that goes on.",
                (
                    f'sum by (instance) (rate(resight_replica_heartbeats_total{{{JOB},outcome="failed"}}[5m]))',
                    "heartbeat {{instance}}",
                ),
                (
                    f'sum by (instance) (rate(resight_replica_follows_total{{{JOB},outcome="failed"}}[5m]))',
                    "follow {{instance}}",
                ),
            ),
        ),
    },
)
