"""The reference is what the code says; every link leads somewhere; every setting and command is in the docs."""

import re
from pathlib import Path

import make_reference
import pytest

from garrison.base.settings import Settings
from garrison.cli.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]+)?\)")


@pytest.mark.parametrize("name", make_reference.pages())
def test_the_page_is_what_the_code_says(name):
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == make_reference.pages()[name], "run scripts/make_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    targets = [page.parent / match[1] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    assert [str(target) for target in targets if not target.exists()] == []


def test_every_page_is_reached_from_the_readme():
    linked = {(ROOT / match[1]).resolve() for match in LINK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))}
    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md")}
    assert pages - linked == set()


def test_every_command_and_every_setting_has_its_lines():
    cli = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert [command.name for command in COMMANDS if f"## garrison {command.name}\n" not in cli] == []
    assert [row.name for row in Settings.table() if f"| `{row.name}` |" not in settings] == []


def test_flags_named_in_the_docs_exist():
    """Every `garrison COMMAND … --flag` in a code block or in code marks is a flag of that command."""
    cli = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    wrong = []
    for page in PAGES:
        for line in re.findall(r"garrison [^`\n]*", page.read_text(encoding="utf-8")):
            # The value of `describe --option` is a flag of the engine.
            command = line.split(" -- ")[0].split("#")[0].split("--option")[0].split()
            if len(command) < 2 or command[1] not in {one.name for one in COMMANDS} or page.parent.name == "reference":
                continue
            section = cli.split(f"## garrison {command[1]}\n", 1)[1].split("\n## ", 1)[0]
            flags = [word.rstrip(",.;)") for word in command if word.startswith("--")]
            wrong += [f"{page.name}: {line}" for flag in flags if flag not in section and flag not in ("--help", "--")]
    assert wrong == []


def test_files_named_in_the_architecture_exist():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page))
    assert len(named) > 50
    assert [name for name in sorted(named) if not (ROOT / "src/garrison" / name).is_file()] == []
