"""What the pages say to helm, docker and kubectl: values, files and names that are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import yaml

from tests.deploy.manifests import CHART, helm
from tests.docs.pages import ROOT, blocks, pages

FILE_OPTIONS = ("-f", "--file", "--from-file", "--values", "--requirement", "-r")


def shell_lines(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Where, and the words of each line of a shell block, continued lines joined."""
    for block in blocks(page):
        if block.language in ("bash", "sh"):
            text = block.text.replace("\\\n", " ")
            for line in re.sub(
                r"<<'?(\w+)'?\n.*?\n\1\n?", "\n", text, flags=re.DOTALL
            ).splitlines():
                yield block.where, shlex.split(line, comments=True)


def here_documents(page: Path) -> dict[str, str]:
    """Files that a page makes with ``cat > FILE <<'END'``."""
    made = re.compile(r"^cat > (\S+) <<'(\w+)'\n(.*?)^\2$", re.DOTALL | re.MULTILINE)
    return {name: text for block in blocks(page) for name, _, text in made.findall(block.text)}


def test_the_chart_takes_the_values_of_a_page(tmp_path: Path) -> None:
    rendered = 0
    for page in pages():
        made = here_documents(page)
        for where, words in shell_lines(page):
            if words[:1] != ["helm"] or words[1] not in ("install", "template", "upgrade"):
                continue
            options: list[str] = []
            for option, value in pairwise(words):
                if option in ("--set", "--set-string"):
                    options += [option, value]
                elif option in ("--values", "-f") and value in made:
                    (tmp_path / "values.yaml").write_text(made[value])
                    options += ["--values", str(tmp_path / "values.yaml")]
                elif option in ("--values", "-f") and (ROOT / value).exists():
                    options += ["--values", str(ROOT / value)]
            if not options:
                continue
            done = helm("template", "site", str(CHART), *options)
            assert done.returncode == 0, f"{where}: {done.stderr}"
            kinds = {each["kind"] for each in yaml.safe_load_all(done.stdout) if each}
            assert "Deployment" in kinds
            rendered += 1
    assert rendered


def test_files_that_are_handed_to_other_programs_are_in_the_repository() -> None:
    looked_at = 0
    for page in pages():
        folder = ROOT
        for where, words in shell_lines(page):
            if words[:1] == ["cd"] and (ROOT / words[1]).is_dir():
                folder = ROOT / words[1]
            for option, value in pairwise(words):
                if option not in FILE_OPTIONS or not value.startswith(
                    ("deploy/", "compose", "requ")
                ):
                    continue
                assert (ROOT / value).exists() or (folder / value).exists(), f"{where}: {value}"
                looked_at += 1
    assert looked_at > 3


def test_services_profiles_and_secrets_of_compose_are_named_as_they_are() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text(encoding="utf-8"))
    profiles = {name for each in compose["services"].values() for name in each.get("profiles", ())}
    for page in pages():
        for where, words in shell_lines(page):
            if words[:2] != ["docker", "compose"]:
                continue
            for option, value in pairwise(words):
                if option == "--profile":
                    assert value in profiles, f"{where}: {value}"
                if option in ("exec", "logs", "restart", "stop"):
                    assert value in compose["services"], f"{where}: {value}"
                if value.startswith("/run/secrets/"):
                    assert Path(value).name in compose["secrets"], f"{where}: {value}"
