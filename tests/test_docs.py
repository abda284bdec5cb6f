"""The documentation runs: every Python block of a page, from top to bottom, as one module with its tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def code_of(page: Path) -> str:
    """The page's blocks, each on the line where the page has it, so that errors name the right line."""
    text = page.read_text()
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text[: block.start(1)].count("\n")
        for offset, line in enumerate(block[1].splitlines()):
            lines[first + offset] = line
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """As it stands, with warnings as errors; tests that a page defines are run as tests."""
    code = code_of(page)
    if not code.strip():
        return
    name = f"test_{page.stem.lower().replace('-', '_')}.py"
    (tmp_path / name).write_text(code)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "error", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    nothing_to_collect = 5
    assert run.returncode in (0, nothing_to_collect), f"{page.name}:\n{run.stdout}{run.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Files that a page names are there."""
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


def test_the_readme_shows_code_before_line_25() -> None:
    """A reader sees what it is for without scrolling."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert "```python" in lines[:25]


def test_the_changelog_starts_with_this_version() -> None:
    """Or with what is not released yet."""
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert headings[0] in ("Unreleased", version[1])
