"""docs/metrics.md and the code have the same metrics; Prometheus reads every query of the page."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.queries import Registered, needs_promtool, parsed, registered, unknown

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text()
SECTION = re.compile(r"^### `(resight_\w+)`\n\n((?:.+\n)+)", re.MULTILINE)
QUERIES = re.findall(r"^```promql\n(.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)


def told() -> dict[str, Registered]:
    return {
        name: Registered(re.split(r"[;.]", line)[0], frozenset(re.findall(r";\s+`(\w+)`:", line)))
        for name, line in SECTION.findall(PAGE)
    }


def test_the_page_and_the_code_have_the_same_metrics_types_and_labels() -> None:
    assert told() == registered()


def test_every_metric_has_a_meaning_a_query_about_it_and_what_the_number_says() -> None:
    parts = re.split(r"^### `(resight_\w+)`\n", PAGE, flags=re.MULTILINE)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        shape = re.match(r"\n(?:.+\n)+\n(?:.+\n)+\n```promql\n((?:.+\n)+)```\n\n(.+\n?)+", text)
        assert shape, name
        assert re.search(rf"\b{name}(_bucket|_sum|_count)?\b", shape[1]), name


def test_queries_name_what_there_is() -> None:
    assert unknown(QUERIES) == []


def test_a_wrong_name_or_label_is_noticed() -> None:
    assert unknown(["resight_request_total"])
    assert unknown(['resight_requests_total{status="OK"}'])
    assert unknown(['rate(resight_batch_size_bucket{le="4",instance=~"a"}[5m])']) == []


@needs_promtool
def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    assert parsed(QUERIES, tmp_path) == ""
    assert "parse error" in parsed(["sum by (rate("], tmp_path)
