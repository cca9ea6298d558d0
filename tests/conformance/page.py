"""Prints docs/conformance.md from the table: `python -m tests.conformance.page > docs/conformance.md`."""

from __future__ import annotations

from collections import defaultdict

from tests.conformance.asked import TABLE

HEAD = """# Conformance
What llama.cpp's own server answers is what HAIF answers: text, finish_reason, usage and logprobs (within 0.02) of
{count} requests that leave no choice, asked of both about the demo model. `tests/conformance/answers.json` has the
server's answers and its version; `python -m tests.conformance.record` asks them anew, and the suite compares a mesh
with them. {alike} are answered alike. The others differ on purpose; a test fails when one does not any more.

| what differs | in | requests |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    reasons: dict[str, list[str]] = defaultdict(list)
    fields: dict[str, list[str]] = defaultdict(list)
    for asked in TABLE:
        for field, reason in asked.differs.items():
            reasons[reason] += [asked.name] * (asked.name not in reasons[reason])
            fields[reason] += [field] * (field not in fields[reason])
    head = HEAD.format(count=len(TABLE), alike=sum(not asked.differs for asked in TABLE))
    rows = (f"| {reason} | {', '.join(fields[reason])} | {', '.join(names)} |" for reason, names in reasons.items())
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
