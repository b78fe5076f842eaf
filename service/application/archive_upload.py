"""The archive of a bundle while it comes: the one that was announced, and not too slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from resight.errors import InvalidArgument, RequestTooSlow
from service.bundles import Incoming
from service.pace import Pace

__all__ = ["receive"]

SILENCE_SECONDS = 60.0


async def receive(
    incoming: Incoming,
    chunks: AsyncIterator[bytes],
    *,
    size_bytes: int,
    sha256: bytes,
    bytes_per_second: float,
) -> None:
    """Write all that comes.

    Args:
        incoming: Where to.
        chunks: What comes.
        size_bytes: Announced length.
        sha256: Announced digest, 32 bytes.
        bytes_per_second: At which it may take as long as it takes.

    Raises:
        InvalidArgument: It is another archive than announced.
        RequestTooSlow: It does not come, or more slowly.
    """
    pace = Pace(SILENCE_SECONDS, bytes_per_second=bytes_per_second)
    while (chunk := await _next(chunks, pace)) is not None:
        if incoming.size + len(chunk) > size_bytes:
            raise InvalidArgument(
                f"the archive is longer than upload.size_bytes, {size_bytes}",
                field="upload.size_bytes",
            )
        pace.came(len(chunk))
        await asyncio.to_thread(incoming.write, chunk)
    digest = await asyncio.to_thread(incoming.complete)
    if incoming.size != size_bytes or digest != sha256:
        raise InvalidArgument(
            f"the archive has {incoming.size} bytes and SHA-256 {digest.hex()}; announced were "
            f"{size_bytes} and {sha256.hex()}: send it again",
            field="upload.sha256",
            reason="ARCHIVE_DIFFERS",
        )


async def _next(chunks: AsyncIterator[bytes], pace: Pace) -> bytes | None:
    """The next piece; None at the end. A caller who is too slow gives their place away."""
    try:
        return await pace.wait(anext(chunks))
    except StopAsyncIteration:
        return None
    except TimeoutError as error:
        raise RequestTooSlow(
            f"the archive fell {SILENCE_SECONDS:.0f} s behind models.min_upload_bytes_per_second; "
            "upload it again, without pauses",
            field="chunk",
        ) from error
