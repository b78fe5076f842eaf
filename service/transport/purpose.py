"""The declared purpose of a call, as it comes: percent-encoded UTF-8 in a header."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from resight.errors import InvalidArgument
from service.domain import names

__all__ = ["MAX_PURPOSE", "PURPOSE", "PURPOSE_FAULT", "decoded_purpose"]

PURPOSE = "resight-purpose"
# In the ``state`` of a REST request: why its purpose cannot be read.
PURPOSE_FAULT = "purpose_fault"
MAX_PURPOSE = 200


def decoded_purpose(text: str) -> str:
    """The purpose; empty for none.

    Raises:
        InvalidArgument: it is not UTF-8, not printable, or too long.
    """
    try:
        purpose = unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"{PURPOSE} is not UTF-8; percent-encode it in UTF-8", field=PURPOSE
        ) from error
    return names.printable(purpose.strip(), field=PURPOSE, limit=MAX_PURPOSE)
