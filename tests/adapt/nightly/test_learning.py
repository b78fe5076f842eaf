"""What a night takes over from the live encoder, and what it refuses before it asks a service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapt.commands import app
from adapt.nightly.learning import night_config, unused_paths
from adapt.training.config import RunConfig
from adapt.training.run import adapt
from resight.bundle import Bundle, open_bundle, write_bundle
from resight.errors import InvalidArgument, NotFound, ResightError

NETWORK = {
    "backbone": "timm:test_efficientnet", "init": "random", "height": 48, "width": 16,
    "resize_filter": "bicubic", "pooling": "gem", "epochs": 0, "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that `adapt run` wrote."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("live")
    (folder / "crops").mkdir()
    for number in range(6):
        Image.new("RGB", (16, 48), (40 * number, 9, 9)).save(
            folder / "crops" / f"{number:04d}_c1s1_000000_00.png"
        )
    config = RunConfig(**NETWORK)  # type: ignore[arg-type]
    return adapt(folder / "crops", folder / "run", config).directory.bundle


@pytest.fixture(scope="module")
def imported(live: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graph without the weights to go on from, as `bundle import` would leave it."""
    bundle = open_bundle(live)
    output = tmp_path_factory.mktemp("imported") / "bundle"
    write_bundle(
        output,
        encoder=bundle.encoder_path.read_bytes(),
        preprocessing=bundle.preprocessing,
        provenance=bundle.manifest.provenance,
        model_card="# Imported\n",
    )
    return output


Configure = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def configure(live: Path) -> Configure:
    bundle = open_bundle(live)

    def made(
        *assignments: str, file: Path | None = None, of: Bundle = bundle, **options: object
    ) -> RunConfig:
        return night_config(of, live, file=file, assignments=assignments, options=options)

    return made


def test_network_and_input_are_the_live_encoders(configure: Configure, live: Path) -> None:
    config = configure("preset=fast", "epochs=7", method="spcl", seed=None)
    assert config.init == str(live)
    assert (config.backbone, config.pooling) == ("timm:test_efficientnet", "gem")
    assert (config.height, config.width, config.resize_filter) == (48, 16, "bicubic")
    assert (config.method, config.epochs) == ("spcl", 7)


def test_the_preset_is_that_of_a_night_where_there_is_no_gpu(
    configure: Configure, tmp_path: Path
) -> None:
    assert configure("device=cpu", preset=None).preset == "night"
    assert configure("device=cpu", preset="fast").preset == "fast"
    assert configure("device=cpu", "preset=published").preset == "published"
    assert configure("device=cuda").preset == "published"
    file = tmp_path / "night.yaml"
    file.write_text("preset: fast\ndevice: cpu\n")
    assert configure(file=file).preset == "fast"


def test_the_input_size_may_be_another(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "night.yaml"
    file.write_text("height: 96\nepochs: 3\n")
    config = configure("width=32", file=file)
    assert (config.height, config.width, config.resize_filter) == (96, 32, "bicubic")


def test_a_night_trains_from_the_live_weights(
    configure: Configure, live: Path, tmp_path: Path
) -> None:
    crops = live.parent.parent / "crops"
    config = configure("device=cpu", "threads=1", "epochs=0")
    outcome = adapt(crops, tmp_path / "run", config)
    assert outcome.model_version == open_bundle(live).model_version, "nothing learnt, nothing new"
    made = open_bundle(outcome.directory.bundle).manifest.provenance
    assert made.parent_version == open_bundle(live).model_version


@pytest.mark.parametrize("key", ["backbone=osnet_x1_0", "pooling=avg"])
def test_another_network_is_refused(configure: Configure, key: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the live encoder's"):
        configure(key)


def test_an_imported_encoder_cannot_be_trained_on(configure: Configure, imported: Path) -> None:
    with pytest.raises(NotFound, match=r"weights\.safetensors"):
        configure(of=open_bundle(imported))


def test_unused_crops_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "skipped.csv").write_text('path,reason,detail\n"a,b.jpg",x,"y ""z"""\nc.jpg,x,\n')
    assert unused_paths(tmp_path / "skipped.csv") == {Path("a,b.jpg"), Path("c.jpg")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "backbone=osnet_x1_0"], "is not the live encoder's"),
        (["--set", "epoch=3"], "unknown setting"),
        (["--time-budget", "soon"], "is not a time"),
        (["--push-gateway", "gateway:9091"], "is no address"),
        (["--replay", "-1"], "--replay -1 must lie in"),
        (["--lease", "0.5"], "--lease 0.5 must lie in"),
        (["--min-crops", "1"], "--min-crops 1 must lie in"),
        (["--baseline", "nowhere"], "nothing at nowhere"),
        (["--gate-config", "nowhere.yaml"], "there is no such file"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked_or_made(
    live: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    state = tmp_path / "state"
    # Nothing listens there: asking it would be another error.
    command = ["nightly", "--live", str(live), "--state", str(state), "--target", "127.0.0.1:1"]
    done = CliRunner().invoke(app, [*command, *options])
    assert isinstance(done.exception, ResightError)
    assert message in done.exception.message
    assert not state.exists()


def test_several_ranks_are_refused(live: Path, tmp_path: Path) -> None:
    command = ["nightly", "--live", str(live), "--state", str(tmp_path / "state")]
    done = CliRunner().invoke(app, command, env={"WORLD_SIZE": "2"})
    assert isinstance(done.exception, InvalidArgument)
    assert "without torchrun" in done.exception.message
