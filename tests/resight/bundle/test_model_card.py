"""The model card says what the usage policy says."""

from __future__ import annotations

import re
from pathlib import Path

from resight.bundle import ModelCard, render_model_card
from resight.bundle.model_card import with_section

ROOT = Path(__file__).resolve().parents[3]
POLICY = (ROOT / "docs" / "usage-policy.md").read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The text below a heading, to the next of its kind."""
    return re.split(rf"^## {re.escape(heading)}$", text, flags=re.MULTILINE)[1].split("\n## ")[0]


def one_line(text: str) -> str:
    return " ".join(text.split()).lower()


def test_every_use_that_the_policy_forbids_is_on_the_card_and_in_the_readme() -> None:
    forbidden = re.findall(r"^- \*\*(.+?)\*\*", section(POLICY, "What it is not for"), re.MULTILINE)
    assert len(forbidden) >= 8
    card = one_line(section(render_model_card(ModelCard("x", 256, 128)), "Intended use"))
    readme = one_line((ROOT / "README.md").read_text(encoding="utf-8"))
    readme = readme[readme.index("## intended use and limits") :]
    for use in forbidden:
        assert use.lower() in card, use
        assert use.lower() in readme, use


def test_the_card_says_size_limits_and_who_must_look() -> None:
    card = render_model_card(ModelCard("x", 384, 128, limits=("not at night",)))
    used = section(card, "Intended use")
    assert "384 x\n128" in used
    for word in ("lawful basis", "purpose", "retention", "reviews every match", "biometric"):
        assert word in used, word
    limits = section(card, "Limits")
    assert "- not at night\n" in limits
    assert "accuracy differs by camera, by domain" in limits
    policy = section(card, "Usage policy")
    for word in ("signs", "purpose of every search", "erasure", "audit", "second person"):
        assert word in policy, word


def test_a_section_that_a_night_writes_leaves_intended_use_as_it_is() -> None:
    card = render_model_card(ModelCard("x", 256, 128))
    gated = with_section(card, "Gate", "Passed.")
    assert section(gated, "Gate").strip() == "Passed."
    for heading in ("Intended use", "Usage policy"):
        assert section(gated, heading).strip() == section(card, heading).strip()
