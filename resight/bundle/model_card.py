"""The model card that goes with every bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ModelCard", "render_model_card"]

_TEMPLATE = """\
# Model card: {name}

## Intended use

Finding further sightings of a person among crops of the cameras the operator runs, for a trained
person to judge. The encoder turns a crop of a person (height x width {height} x {width}) into a
vector; near vectors look alike to it. It ranks; it identifies nobody, and a high rank is no proof.

Not intended: naming people, deciding about a person without human review, covert tracking,
inferring age, sex, origin, health or feelings, or use on footage taken for another purpose.

## How it was made

{method}

## Data

{data}

## Metrics

{metrics}

## Limits

- Looks, not faces: who changes clothes is lost, and people dressed alike are confused.
- It is fitted to the cameras, season and light of its data; elsewhere measure before use.
- Error rates may differ between groups of people (clothing, skin tone, age, body, mobility aids).
  They were not measured unless the table above says so.
- Similarities of two encoder versions cannot be compared with each other.
{limits}
## Usage policy

- Have a lawful basis, a stated purpose and a retention period before collecting crops.
- Keep access to searches restricted and logged; a second person reviews what leads to action.
- Honour requests for information and erasure; erase from training data as well as the gallery.
- Stop using the encoder where measured error rates differ between groups beyond your bound.
"""

_UNKNOWN = "Not stated by whoever made this bundle."


@dataclass(frozen=True)
class ModelCard:
    """What the card says beyond its fixed text.

    Attributes:
        name: Title.
        height: Input height in pixels.
        width: Input width in pixels.
        method: How it was made: method, start weights, run.
        data: What it was trained on, and under which licence or basis.
        metrics: Figures by name, each with where it was measured.
        limits: Further limits, one a line.
    """

    name: str
    height: int
    width: int
    method: str = _UNKNOWN
    data: str = _UNKNOWN
    metrics: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()


def render_model_card(card: ModelCard) -> str:
    """The card as Markdown."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in card.metrics.items())
    metrics = f"| metric | value |\n|---|---|\n{rows}" if rows else "None was measured."
    return _TEMPLATE.format(
        name=card.name,
        height=card.height,
        width=card.width,
        method=card.method,
        data=card.data,
        metrics=metrics,
        limits="".join(f"- {limit}\n" for limit in card.limits),
    )
