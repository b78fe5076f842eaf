"""One Milvus collection and the pymilvus calls on it: the same for a server and for milvus-lite.

A server is named by a URI, an embedded milvus-lite by the path of a file. Rows lie in a partition
for each day of UTC; the vector index is FLAT with inner products, on which Milvus compares every
row (it builds none of its approximate interim indexes for FLAT); consistency is Strong.

What differs in milvus-lite 3.2, each seen in a trial:

- ``release_partitions`` is not there (UNIMPLEMENTED), and not needed before a partition is
  dropped: the one call that is left out.
- ``count(*)`` without an expression counts the whole collection, whatever partitions are named:
  it is never asked that way.
- An expression's template parameters (``{name}``) are a syntax error: none are used.
- ``limit`` above 16,384 is served; a server refuses it: never asked for.
- A search in a partition that does not exist finds nothing, and a server refuses it; deleting an
  id that is not there reports it as deleted: rows are looked up first.
- A deleted row comes back when its id is inserted again in another partition before the deletion
  was flushed: it is flushed before (``tombstones``).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition
from service.domain import names
from service.domain.crop import MAX_TRACK_ID, MAX_ZONE
from service.milvus import days, expressions
from service.milvus.connection import translated
from service.milvus.tombstones import Tombstones

__all__ = ["MAX_LIMIT", "Collection", "Found"]

# Milvus returns at most so many rows a search.
MAX_LIMIT = 16_384
# Bytes of vectors in one message, far below what either side takes.
MESSAGE_BYTES = 32 * 1024 * 1024
# Bytes of a row beside its vector, roughly, when its texts are long.
ROW_BYTES = 2048
# Ids named in one expression.
IDS = 2048
# Percent encoding makes three characters of each byte, UTF-8 up to four bytes of a character.
ENCODED = 12

STRONG = "Strong"
# Properties of a collection that begin so are ours.
NOTE = "resight."


class Found(NamedTuple):
    """Rows of one search, best first.

    Args:
        ids: (N,) str, 32 hexadecimal digits.
        products: (N,) float32, as Milvus computed them.
        vectors: (N, D) float32.
    """

    ids: NDArray[np.str_]
    products: NDArray[np.float32]
    vectors: NDArray[np.float32]


class Collection:
    """A collection of rows; made when it is not there.

    Args:
        client: From ``connect``.
        name: Name of the collection.
        dimension: Values a vector.
        timeout: Seconds for each call.
        embedded: Whether the client runs milvus-lite.

    Raises:
        FailedPrecondition: a collection of this name has other columns.
        Unavailable: Milvus does not answer.
    """

    def __init__(
        self, client: Any, name: str, dimension: int, *, timeout: float = 30.0, embedded: bool
    ) -> None:
        self.name = name
        self.dimension = dimension
        self.limit = max(2, min(MAX_LIMIT, MESSAGE_BYTES // (4 * dimension)))
        self._client = client
        self._embedded = embedded
        self._tombstones = Tombstones()
        self._options: dict[str, Any] = {"collection_name": name, "timeout": timeout}
        self._insert_rows = max(1, MESSAGE_BYTES // (4 * dimension + ROW_BYTES))
        with self._calling("opening"):
            if client.has_collection(name, timeout=timeout):
                self._check()
                client.load_collection(**self._options)
            else:
                self._create()

    def days(self) -> set[int]:
        """Days that have a partition."""
        with self._calling("listing partitions"):
            listed = self._client.list_partitions(**self._options)
        return {day for name in listed if (day := days.day_of_name(name)) is not None}

    def add_day(self, day: int) -> None:
        """Make a day's partition; nothing happens when it is there."""
        with self._calling("making a partition"):
            self._client.create_partition(partition_name=days.name_of_day(day), **self._options)

    def drop_day(self, day: int) -> None:
        """Drop a day's partition with its rows; nothing happens when it is not there."""
        name = days.name_of_day(day)
        with self._calling("dropping a partition"):
            if not self._client.has_partition(partition_name=name, **self._options):
                return
            if not self._embedded:
                self._client.release_partitions(partition_names=[name], **self._options)
            self._client.drop_partition(partition_name=name, **self._options)

    def note(self, key: str) -> str:
        """A text that was kept with the collection; empty when there is none."""
        with self._calling("reading properties"):
            described = self._client.describe_collection(**self._options)
        return str(dict(described.get("properties") or {}).get(NOTE + key, ""))

    def keep_note(self, key: str, value: str) -> None:
        """Keep a text with the collection, in place of the one there was."""
        with self._calling("writing properties"):
            self._client.alter_collection_properties(
                properties={NOTE + key: value}, **self._options
            )

    def drop(self) -> None:
        """Remove the collection itself; nothing else may follow."""
        with self._calling("dropping"):
            self._client.drop_collection(**self._options)

    def insert(self, day: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of one day."""
        if self._embedded and self._tombstones.hide(row["id"] for row in rows):
            with self._calling("flushing"):
                self._client.flush(**self._options)
            self._tombstones.flushed()
        for start in range(0, len(rows), self._insert_rows):
            with self._calling("inserting"):
                self._client.insert(
                    data=list(rows[start : start + self._insert_rows]),
                    partition_name=days.name_of_day(day),
                    **self._options,
                )

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows; unknown ids do nothing."""
        self._tombstones.deleted(ids)
        for part in _parts(ids):
            with self._calling("deleting"):
                self._client.delete(filter=expressions.ids_in(part), **self._options)

    def delete_before(self, day: int, time: int) -> None:
        """Remove the rows of a day captured before a microsecond."""
        self._tombstones.deleted(None)
        with self._calling("deleting"):
            self._client.delete(
                filter=expressions.both(f"time >= {day * days.MICROS}", f"time < {time}"),
                partition_name=days.name_of_day(day),
                **self._options,
            )

    def count(self, expression: str, in_days: Sequence[int]) -> int:
        """Rows of these days, at least one, that satisfy an expression that is not empty."""
        with self._calling("counting"):
            counted = self._client.query(
                filter=expression,
                output_fields=["count(*)"],
                partition_names=[days.name_of_day(day) for day in in_days],
                consistency_level=STRONG,
                **self._options,
            )
        return int(counted[0]["count(*)"])

    def rows(self, ids: Sequence[str], fields: Sequence[str]) -> list[Mapping[str, Any]]:
        """Fields of the rows that are there, in no order."""
        found: list[Mapping[str, Any]] = []
        most = min(IDS, self.limit) if "vector" in fields else IDS
        for part in _parts(ids, most):
            with self._calling("reading"):
                found += self._client.query(
                    filter=expressions.ids_in(part),
                    output_fields=list(fields),
                    consistency_level=STRONG,
                    **self._options,
                )
        return found

    def ids(self) -> Iterator[list[str]]:
        """Every id, some thousands at a time."""
        with self._calling("reading ids"):
            pages = self._client.query_iterator(
                batch_size=8192, output_fields=["id"], consistency_level=STRONG, **self._options
            )
            try:
                while page := pages.next():
                    yield [row["id"] for row in page]
            finally:
                pages.close()

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        expression: str,
        in_days: Sequence[int],
    ) -> list[Found]:
        """The rows of the largest products, ``limit`` at most, for each of queries (Q, D).

        ``Q * limit`` is at most ``self.limit``.
        """
        with self._calling("searching"):
            answers = self._client.search(
                data=list(queries),
                anns_field="vector",
                limit=limit,
                filter=expression,
                output_fields=["vector"],
                partition_names=[days.name_of_day(day) for day in in_days],
                search_params={"metric_type": "IP"},
                consistency_level=STRONG,
                **self._options,
            )
        return [self._found(answer) for answer in answers]

    def _found(self, hits: Sequence[Mapping[str, Any]]) -> Found:
        vectors = np.empty((len(hits), self.dimension), np.float32)
        for place, hit in enumerate(hits):
            vectors[place] = hit["entity"]["vector"]
        return Found(
            np.array([hit["id"] for hit in hits], dtype="U32"),
            np.array([hit["distance"] for hit in hits], np.float32),
            vectors,
        )

    def _create(self) -> None:
        types = importlib.import_module("pymilvus").DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", types.VARCHAR, is_primary=True, max_length=32)
        schema.add_field("camera", types.INT64)
        schema.add_field("time", types.INT64)
        schema.add_field("zone", types.VARCHAR, max_length=ENCODED * MAX_ZONE)
        schema.add_field("track", types.VARCHAR, max_length=ENCODED * MAX_TRACK_ID)
        schema.add_field(
            "attributes",
            types.ARRAY,
            element_type=types.VARCHAR,
            max_capacity=2 * names.MAX_ATTRIBUTES,
            max_length=2 * ENCODED * names.MAX_ATTRIBUTE_VALUE,
        )
        schema.add_field("vector", types.FLOAT_VECTOR, dim=self.dimension)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            schema=schema, index_params=index, consistency_level=STRONG, **self._options
        )

    def _check(self) -> None:
        described = self._client.describe_collection(**self._options)
        fields = {field["name"]: field for field in described["fields"]}
        wanted = {"id", "camera", "time", "zone", "track", "attributes", "vector"}
        dimension = fields.get("vector", {}).get("params", {}).get("dim")
        if set(fields) != wanted or int(dimension or 0) != self.dimension:
            raise FailedPrecondition(
                f"Milvus collection {self.name!r} has fields {sorted(fields)} and vectors of "
                f"{dimension} values, not {sorted(wanted)} and {self.dimension}; it is not ours: "
                "choose another milvus.prefix",
                field="milvus.prefix",
            )

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        with translated(f"{what}, collection {self.name!r}"):
            yield


def _parts(ids: Sequence[str], most: int = IDS) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), most):
        yield ids[start : start + most]
