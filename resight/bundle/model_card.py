"""The model card that goes with every bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ModelCard", "render_model_card", "with_section"]

_TEMPLATE = """\
# Model card: {name}

## Intended use

Finding further sightings of a person among crops of the cameras the operator runs lawfully, for a
trained person to look at and judge. The encoder turns a crop of a person (height x width {height} x
{width}) into a vector; near vectors look alike to it. It ranks; it identifies nobody, and a high
rank or probability is no proof: the best match is shown even where the person was never there.

For operators who have a lawful basis, a stated purpose, notice to the people recorded, a retention
rule, and somebody who reviews every match before anybody acts on it. Crops and vectors are
biometric data in many laws; treat them so.

Not intended:

- face recognition or identity databases: naming people, or matching them with any register;
- decisions made by the machine alone: about nobody without human review;
- covert tracking of people who have not been told;
- finding, following or sorting people of protected groups;
- guessing traits: age, sex, origin, health, mood or intent;
- scoring people, predicting offences, or watching everybody just in case;
- footage taken for another purpose;
- weapons, or any use meant to harm a person.

## How it was made

{method}

## Data

{data}

## Metrics

{metrics}

## Gate

{gate}

## Limits

- Looks, not faces: who changes clothes is lost, and people dressed alike are confused.
- It is fitted to the cameras, season and light of its data; accuracy differs by camera, by domain
  and by people. Elsewhere measure before use.
- Error rates may differ between groups of people (clothing, skin tone, age, body, mobility aids).
  They were not measured unless the table above says so.
- Similarities of two encoder versions cannot be compared with each other.
{limits}
## Licence and privacy

{licence}

Crops show people. The bundle holds no crop, no identity and no file name of one; a network's
weights can still carry traces of what they were fitted to, so keep the bundle where its crops may
be kept, and retire it when they must be erased.

## Usage policy

- Have a lawful basis, a stated purpose, signs at the cameras and a retention period before
  collecting crops; for training on them, too.
- Declare the purpose of every search. Keep access to searches restricted and logged; somebody other
  than those who search reads the audit.
- Look at every match with the footage it came from; a second person reviews what leads to action.
- Honour requests for information and erasure; erase from training data as well as the gallery. What
  an encoder has learnt is not unlearnt: retire it.
- Stop using the encoder where measured error rates differ between groups beyond your bound.

The whole policy is docs/usage-policy.md of resight.
"""

_UNKNOWN = "Not stated by whoever made this bundle."
_NOT_JUDGED = "Not judged: no gate has compared this encoder with the one in service."
_NO_LICENCE = (
    "Not stated. The licence of the start weights, and the terms under which the crops were"
    " collected, bind the result too."
)


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
        gate: What the gate said of it.
        licence: Under which terms it may be used.
    """

    name: str
    height: int
    width: int
    method: str = _UNKNOWN
    data: str = _UNKNOWN
    metrics: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    gate: str = _NOT_JUDGED
    licence: str = _NO_LICENCE


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
        gate=card.gate,
        licence=card.licence,
    )


def with_section(card: str, heading: str, text: str) -> str:
    """A card with the text of one section replaced, or the section added at its end.

    Args:
        card: Markdown with ``## `` headings.
        heading: Without the signs.
        text: What is to stand below it.
    """
    lines = card.splitlines()
    marks = [i for i, line in enumerate(lines) if line.startswith("## ")]
    start = next((i for i in marks if lines[i].removeprefix("## ").strip() == heading), None)
    body = [f"## {heading}", "", *text.splitlines(), ""]
    if start is None:
        return "\n".join([*lines, "", *body])
    end = next((i for i in marks if i > start), len(lines))
    return "\n".join([*lines[:start], *body, *lines[end:]]).rstrip("\n") + "\n"
