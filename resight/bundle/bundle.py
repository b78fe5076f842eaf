"""What a reader holds after a bundle has been verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from resight.bundle.layout import ENCODER, MANIFEST
from resight.crops.preprocessing import RESIZE_FILTERS, Preprocessing
from resight.errors import BundleCorrupt, NotFound, ResightError
from resight.v1 import bundle_pb2

__all__ = ["Bundle", "preprocessing_from_proto", "preprocessing_to_proto"]


def preprocessing_to_proto(preprocessing: Preprocessing) -> bundle_pb2.Preprocessing:
    """The manifest's form of a preprocessing."""
    return bundle_pb2.Preprocessing(
        height=preprocessing.height,
        width=preprocessing.width,
        resize_filter=preprocessing.resize_filter,
    )


def preprocessing_from_proto(message: bundle_pb2.Preprocessing) -> Preprocessing:
    """The preprocessing of a manifest.

    Raises:
        BundleCorrupt: A size or the resize filter is none we know.
    """
    for resize_filter in RESIZE_FILTERS:
        if message.resize_filter == resize_filter:
            try:
                return Preprocessing(message.height, message.width, resize_filter)
            except ResightError as error:
                raise BundleCorrupt(
                    f"{MANIFEST}: preprocessing.{error.message}", field=MANIFEST
                ) from error
    raise BundleCorrupt(
        f"{MANIFEST}: preprocessing.resize_filter is {message.resize_filter!r}; this version"
        f" knows {', '.join(RESIZE_FILTERS)}",
        field=MANIFEST,
    )


@dataclass(frozen=True)
class Bundle:
    """A verified encoder.

    Attributes:
        directory: Where its files lie; for a ``.tar``, a temporary folder that lives as long as
            this object.
        manifest: The manifest; not to be changed.
        preprocessing: How an image becomes the encoder's input.
    """

    directory: Path
    manifest: bundle_pb2.BundleManifest
    preprocessing: Preprocessing
    _unpacked: object = field(default=None, repr=False, compare=False)

    @property
    def model_version(self) -> str:
        """Digest of the fp32 graph and its preprocessing."""
        return self.manifest.model_version

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.manifest.dimension

    @property
    def encoder_path(self) -> Path:
        """The fp32 graph."""
        return self.directory / ENCODER

    def file(self, name: str) -> Path:
        """A file that the manifest lists.

        Raises:
            NotFound: It lists no such file.
        """
        names = [entry.path for entry in self.manifest.files]
        if name not in names:
            raise NotFound(
                f"bundle {self.model_version} holds no {name}; it holds {', '.join(names)}",
                field=name,
            )
        return self.directory / name
