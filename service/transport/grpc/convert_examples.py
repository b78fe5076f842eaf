"""Examples and embeddings of resight.v1 as the domain's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from resight.errors import InvalidArgument
from resight.v1 import search_service_pb2, types_pb2
from service.domain.examples import Example, Fusion
from service.domain.query_embedding import QueryEmbedding

__all__ = ["Examples", "fusion", "query_embedding"]

_FUSIONS: dict[int, Fusion] = {
    search_service_pb2.FUSION_UNSPECIFIED: Fusion.MEAN,
    search_service_pb2.FUSION_MEAN: Fusion.MEAN,
    search_service_pb2.FUSION_MAX: Fusion.MAX,
    search_service_pb2.FUSION_QUALITY: Fusion.QUALITY,
}


class Examples(Sequence[Example]):
    """Examples made when they are read: they are counted before.

    Args:
        messages: The examples.
        field: The list's name.
    """

    def __init__(self, messages: Sequence[search_service_pb2.Example], field: str) -> None:
        self._messages = messages
        self._field = field

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        message = self._messages[place]
        kind = message.WhichOneof("example")
        return Example(
            image=message.image if kind == "image" else None,
            crop_id=message.crop_id if kind == "crop_id" else None,
            embedding=query_embedding(
                message.embedding, field=f"{self._field}[{place}].embedding.values"
            )
            if kind == "embedding"
            else None,
            weight=message.weight if message.HasField("weight") else None,
        )


def fusion(value: int) -> Fusion:
    """How examples are fused.

    Raises:
        InvalidArgument: a value that this version does not know.
    """
    if value not in _FUSIONS:
        raise InvalidArgument(
            f"fusion {value} is unknown to this version; send MEAN, MAX or QUALITY",
            field="fusion",
        )
    return _FUSIONS[value]


def query_embedding(
    message: types_pb2.Embedding, *, field: str = "embedding.values"
) -> QueryEmbedding:
    """The caller's vector.

    Raises:
        InvalidArgument: its bytes do not fit its dimension.
    """
    if len(message.values) != 4 * message.dimension:
        raise InvalidArgument(
            f"{field} has {len(message.values)} bytes but its dimension {message.dimension} needs "
            f"{4 * message.dimension}; send little-endian float32",
            field=field,
        )
    return QueryEmbedding(
        values=np.frombuffer(message.values, "<f4"), model_version=message.model_version
    )
