"""The bundle's graph in the form TensorRT parses: bytes may only be cast there, not moved.

The encoder transposes pixels while each is one byte, which is cheapest on a CPU; TensorRT takes
uint8 as input of a cast alone. Both orders give the same numbers.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from resight.errors import InvalidArgument

__all__ = ["with_early_cast"]

_MOVES = frozenset({"Transpose", "Gather"})


def with_early_cast(encoder: bytes) -> bytes:
    """Moves the cast of ``images`` in front of what reorders its bytes.

    Raises:
        InvalidArgument: Something else than reordering happens to the bytes.
    """
    model = onnx.load_model_from_string(encoder)
    nodes = list(model.graph.node)
    chain = _chain(nodes)
    if len(chain) > 1:
        *moves, cast = chain
        end = cast.output[0]
        cast.output[0] = f"{end}/early"
        cast.input[0] = "images"
        moves[0].input[0] = cast.output[0]
        moves[-1].output[0] = end
        others = [node for node in nodes if all(node is not part for part in chain)]
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend([cast, *moves, *others])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _chain(nodes: list[Any]) -> list[Any]:
    """The nodes from the input to its cast, that included."""
    chain: list[Any] = []
    name = "images"
    while True:
        readers = [node for node in nodes if name in node.input]
        if len(readers) != 1 or readers[0].op_type not in _MOVES | {"Cast"}:
            found = ", ".join(node.op_type for node in readers) or "nothing"
            raise InvalidArgument(
                f"encoder: {found} reads the bytes of the input, and TensorRT can only reorder and"
                " cast them; wrap the encoder with `resight bundle import`",
                field="encoder",
            )
        chain.append(readers[0])
        if readers[0].op_type == "Cast":
            if readers[0].attribute[0].i not in {TensorProto.FLOAT, TensorProto.FLOAT16}:
                raise InvalidArgument("encoder: the input is not cast to a float", field="encoder")
            return chain
        name = readers[0].output[0]
