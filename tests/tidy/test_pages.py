"""Pages that many write stay whole: decisions are numbered once, and the changelog says everything once."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADINGS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # of Keep a Changelog, in its order


def test_decisions_are_numbered_from_one_without_gaps_and_say_their_number() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1))
    for number, page in zip(numbers, pages, strict=True):
        assert page.read_text().startswith(f"# {number}. "), page.name


def test_the_changelog_has_each_heading_of_a_version_once_and_no_line_twice() -> None:
    for version in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        found = re.findall(r"^### (.*)$", version, flags=re.MULTILINE)
        assert found == [each for each in HEADINGS if each in found]
        lines = Counter(line for line in version.splitlines() if line)
        assert [line for line, times in lines.items() if times > 1] == []
