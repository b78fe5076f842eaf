"""Boards as Grafana reads them."""

from __future__ import annotations

import json
from typing import Any

from tools.boards.vocabulary import Board, Panel

__all__ = ["board", "text"]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, ACROSS = 8, 8, 3


def drawn(one: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana reads it."""
    steps: list[dict[str, Any]] = [
        {"color": colour, "value": None if place == 0 else value}
        for place, (value, colour) in enumerate(one.thresholds or ((0.0, "green"),))
    ]
    defaults: dict[str, Any] = {
        "unit": one.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}}
    if one.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto"}
    elif one.thresholds:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "id": number,
        "type": one.kind,
        "title": one.title,
        "description": one.says,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend or "__auto",
                "exemplar": one.exemplars,
            }
            for place, (query, legend) in enumerate(one.queries)
        ],
    }


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice out of the values of a label; several, or all."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def board(one: Board) -> dict[str, Any]:
    """A board as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    number, y = 0, 0
    for title, row in one.rows.items():
        number += 1
        place = {"h": 1, "w": WIDTH * ACROSS, "x": 0, "y": y}
        panels.append(
            {
                "id": number,
                "type": "row",
                "title": title,
                "gridPos": place,
                "collapsed": False,
                "panels": [],
            }
        )
        y += 1
        for index, item in enumerate(row):
            number += 1
            x, down = index % ACROSS * WIDTH, index // ACROSS * HEIGHT
            panels.append(drawn(item, number, x, y + down))
        y += -(-len(row) // ACROSS) * HEIGHT
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        variable("job", "label_values(resight_ready, job)"),
    ]
    if one.by_gallery:
        variables.append(
            variable("gallery", 'label_values(resight_gallery_vectors{job=~"$job"}, gallery)')
        )
    return {
        "uid": one.uid,
        "title": one.title,
        "description": one.says,
        "tags": list(one.tags),
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": one.since, "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"Resight.*",alertstate="firing"}',
                    "titleFormat": "{{alertname}}",
                }
            ]
        },
        "links": [
            {
                "title": "resight",
                "type": "dashboards",
                "tags": ["resight"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


def text(one: Board) -> str:
    """What is in the file."""
    return json.dumps(board(one), indent=2, ensure_ascii=False) + "\n"
