"""``resight adapt cluster``: pseudo-labels for given features, the clustering alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, cluster
from adapt.clustering.reciprocal import Convention
from adapt.clustering.settings import MAX_NEIGHBOURS, ClusterSettings, Distance, Neighbourhood
from resight.console import emit, progress
from resight.errors import InvalidArgument, NotFound

__all__ = ["register"]

_DEFAULTS = ClusterSettings()


def register(app: typer.Typer) -> None:
    """Add ``cluster`` to the group."""
    app.command("cluster")(cluster_features)


def cluster_features(
    features: Annotated[Path, typer.Option(help=".npy, float (N, D), one row per crop.")],
    output: Annotated[Path, typer.Option(help=".npy to write: int32 (N,), outliers -1.")],
    cameras: Annotated[
        Path | None,
        typer.Option(help=".npy (N,) of camera ids: for the report and for ca-jaccard."),
    ] = None,
    distance: Annotated[
        str, typer.Option(help="jaccard, or ca-jaccard, which needs --cameras.")
    ] = _DEFAULTS.distance,
    k1: Annotated[
        int, typer.Option(min=1, max=MAX_NEIGHBOURS, help="k-reciprocal neighbourhood.")
    ] = _DEFAULTS.k1,
    k2: Annotated[int, typer.Option(min=1, help="Neighbours averaged, at most k1.")] = _DEFAULTS.k2,
    k1_intra: Annotated[
        int, typer.Option(min=1, max=MAX_NEIGHBOURS, help="ca-jaccard: k1 within the camera.")
    ] = _DEFAULTS.k1_intra,
    k1_inter: Annotated[
        int, typer.Option(min=1, max=MAX_NEIGHBOURS, help="ca-jaccard: k1 in other cameras.")
    ] = _DEFAULTS.k1_inter,
    k2_intra: Annotated[
        int, typer.Option(min=1, help="ca-jaccard: crops of the camera averaged.")
    ] = _DEFAULTS.k2_intra,
    k2_inter: Annotated[
        int, typer.Option(min=0, help="ca-jaccard: crops of other cameras averaged.")
    ] = _DEFAULTS.k2_inter,
    eps: Annotated[str, typer.Option(help="DBSCAN radius, a Jaccard distance, or auto.")] = str(
        _DEFAULTS.eps
    ),
    neighbours: Annotated[
        str, typer.Option(help="exact, approximate, or auto: approximate above a size.")
    ] = _DEFAULTS.neighbours,
    approximate_above: Annotated[
        int, typer.Option(min=0, help="Crops above which auto is approximate.")
    ] = _DEFAULTS.approximate_above,
    neighbour_recall: Annotated[
        float, typer.Option(help="Share of the exact neighbours that approximate must find.")
    ] = _DEFAULTS.neighbour_recall,
    min_samples: Annotated[
        int, typer.Option(min=1, help="Crops within eps, itself included, that make a core.")
    ] = _DEFAULTS.min_samples,
    convention: Annotated[
        str, typer.Option(help="What k1 counts: released (with the crop itself) or zhong.")
    ] = _DEFAULTS.convention,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: every core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Cluster features: exact k-reciprocal Jaccard distance and DBSCAN."""
    settings = ClusterSettings(
        distance=_choice("distance", distance, Distance),
        k1=k1,
        k2=k2,
        k1_intra=k1_intra,
        k1_inter=k1_inter,
        k2_intra=k2_intra,
        k2_inter=k2_inter,
        eps=_radius(eps),
        min_samples=min_samples,
        neighbours=_choice("neighbours", neighbours, Neighbourhood),
        approximate_above=approximate_above,
        neighbour_recall=neighbour_recall,
        convention=_choice("convention", convention, Convention),
    )
    rows = _load("features", features)
    if rows.ndim == 2 and rows.shape[0] == 0:
        raise InvalidArgument(
            f"features: {features} has no rows; embed at least one crop", field="features"
        )
    seen_by = None if cameras is None else _camera_column(cameras, rows)
    with progress("neighbours") as bar:
        result = cluster(
            rows,
            settings,
            cameras=None if seen_by is None else np.unique(seen_by, return_inverse=True)[1],
            threads=threads,
            progress=lambda _done, _all: bar.advance(),
            overwrite=True,
        )
    _save(output, result.labels)
    payload = _report(result, seen_by) | {"output": str(output)}
    emit(payload, as_json=as_json, text=_text(payload))


def _choice(field: str, name: str, kind: Any) -> Any:
    if name not in get_args(kind):
        raise InvalidArgument(
            f"{field}: is {name!r}; choose {' or '.join(get_args(kind))}", field=field
        )
    return name


def _radius(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InvalidArgument(
            f"eps: is {text!r}; give a number between 0 and 1, or auto", field="eps"
        ) from None


def _load(field: str, path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise NotFound(f"{field}: no file {path}; give a .npy file", field=field)
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidArgument(
            f"{field}: {path} is not a .npy array of numbers ({error}); write it with numpy.save",
            field=field,
        ) from error
    if not isinstance(loaded, np.ndarray):
        raise InvalidArgument(
            f"{field}: {path} is an archive of arrays; write one array with numpy.save",
            field=field,
        )
    return loaded


def _camera_column(path: Path, rows: NDArray[Any]) -> NDArray[Any]:
    cameras = _load("cameras", path)
    if cameras.shape != rows.shape[:1]:
        raise InvalidArgument(
            f"cameras: has shape {cameras.shape}; give one id for each of the {len(rows)} rows of "
            "features",
            field="cameras",
        )
    return cameras


def _save(path: Path, labels: NDArray[np.int32]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # numpy.save would append .npy to another name
            np.save(file, labels)
    except OSError as error:
        raise InvalidArgument(
            f"output: {path} cannot be written ({error.strerror}); choose another place",
            field="output",
        ) from error


def _report(result: ClusterResult, cameras: NDArray[Any] | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "rows": int(result.labels.size),
        "clusters": result.clusters,
        "outliers": result.outliers,
        "largest_cluster": result.largest,
        **_asked(result.settings),
        "eps": result.eps,
        **({} if result.radius is None else {"eps_reason": result.radius.reason}),
        "neighbours": result.neighbours.searched,
        "neighbour_recall": round(result.neighbours.recall, 4),
        "figures": {name: round(value, 4) for name, value in result.figures.items()},
        "seconds": {name: round(value, 4) for name, value in result.seconds.items()},
        "notes": list(result.notes),
    }
    if cameras is not None:
        report["cameras"] = _camera_report(result.labels, cameras)
        if result.settings.distance == "jaccard":
            report["notes"].append("cameras are counted here and have no part in the clustering")
    return report


def _asked(settings: ClusterSettings) -> dict[str, Any]:
    """The settings that had a part in the labels."""
    own = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
    names = ("k1", "k2") if settings.distance == "jaccard" else own
    return {
        name: getattr(settings, name) for name in ("distance", *names, "min_samples", "convention")
    }


def _camera_report(labels: NDArray[np.int32], cameras: NDArray[Any]) -> dict[str, Any]:
    names, codes = np.unique(cameras, return_inverse=True)
    clustered = labels >= 0
    pairs = np.unique(np.stack([labels[clustered], codes[clustered]]), axis=1)
    cameras_of_cluster = np.bincount(pairs[0], minlength=int(labels.max(initial=-1)) + 1)
    return {
        "per_camera": {
            str(name): {
                "rows": int(np.count_nonzero(codes == code)),
                "outliers": int(np.count_nonzero((codes == code) & ~clustered)),
                "clusters": int(np.count_nonzero(pairs[1] == code)),
            }
            for code, name in enumerate(names)
        },
        "clusters_of_one_camera": int(np.count_nonzero(cameras_of_cluster == 1)),
    }


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"{report['rows']} rows: {report['clusters']} clusters (largest "
        f"{report['largest_cluster']}), {report['outliers']} outliers, "
        f"{report['seconds']['total']:.2f} s -> {report['output']}"
    ]
    if "eps_reason" in report:
        lines.append(report["eps_reason"])
    if "cameras" in report:
        for name, row in report["cameras"]["per_camera"].items():
            lines.append(
                f"camera {name}: {row['rows']} rows in {row['clusters']} clusters, "
                f"{row['outliers']} outliers"
            )
        lines.append(f"clusters of one camera: {report['cameras']['clusters_of_one_camera']}")
    return "\n".join(lines + [f"note: {note}" for note in report["notes"]])
