"""Looks for secrets in text, in every form that a log line could give them."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Needles", "forms_of_bytes", "forms_of_text", "forms_of_vector"]

_WINDOWS = 64
_BYTES = 12


def forms_of_bytes(data: bytes, *, seed: int = 0) -> list[bytes]:
    """Pieces of the data: raw, in hex, base64 (also for URLs) and as Python and JSON show bytes."""
    draw = random.Random(seed)
    starts = {draw.randrange(max(1, len(data) - _BYTES)) // 3 * 3 for _ in range(_WINDOWS)}
    forms: set[bytes] = set()
    for start in starts:
        piece = data[start : start + _BYTES]
        # A run of one value stands in many places that are no leak.
        if len(set(piece)) < 6:
            continue
        forms |= {
            piece,
            piece.hex().encode(),
            base64.b64encode(piece),
            base64.urlsafe_b64encode(piece),
            repr(piece)[2:-1].encode(),
            # As a line of JSON that holds it.
            json.dumps(repr(piece))[3:-2].encode(),
            json.dumps(piece.decode("latin-1"))[1:-1].encode(),
            ", ".join(str(value) for value in piece).encode(),
            ",".join(str(value) for value in piece).encode(),
        }
    return sorted(forms)


def forms_of_vector(values: Sequence[float]) -> list[bytes]:
    """Single values as text, and neighbours as float32 bytes."""
    # Cut, as every way to print a float agrees on its first digits; few digits may be anything.
    told = [repr(abs(value)) for value in values]
    forms = {text[:9].encode() for text in told if len(text) >= 11 and "e" not in text}
    raw = struct.pack(f"<{len(values)}f", *values)
    return sorted(forms | set(forms_of_bytes(raw)))


def forms_of_text(secret: str) -> list[bytes]:
    """The text, in base64 too, and its middle, should its ends be cut."""
    middle = secret[len(secret) // 4 : -(len(secret) // 4)]
    return [
        secret.encode(),
        base64.b64encode(secret.encode())[:-4],
        *([middle.encode()] if len(middle) >= 12 else []),
    ]


class Needles:
    """What must be nowhere."""

    def __init__(self, needles: Mapping[str, Iterable[bytes]]) -> None:
        self.needles = {name: list(forms) for name, forms in needles.items()}

    def found_in(self, *places: bytes) -> list[tuple[str, bytes, bytes]]:
        """What was found: its name, the form, and where."""
        found = []
        for place in places:
            for name, forms in self.needles.items():
                for form in forms:
                    at = place.find(form)
                    if at >= 0:
                        found.append((name, form, place[max(0, at - 120) : at + 120]))
                        break
        return found
