"""What the two gates said of a run, as its page shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data.gate import Finding
from flows.results import Checked, Registered
from vae.sections import Section, Table

MOST_CHANGES = 40


def verdicts(checked: Checked, version: Registered) -> list[Section]:
    """A section for each gate."""
    state = "is the champion" if version.promoted else "is not promoted"
    judged = f"Version {version.version} of {version.name} {state}: {'; '.join(version.reasons)}."
    return [data_gate(checked), Section("What the registry’s gate said", [judged])]


def data_gate(checked: Checked) -> Section:
    """The checks before training, counted by kind, and whatever is not as it was."""
    title, found = "What the data gate said", checked.findings
    if not checked.against:
        (rows,) = found
        words = (
            f"There was no champion whose data this could be compared with; rows: {rows.value}, {rows.limit}."
        )
        return Section(title, [words])
    let_through = sum(not finding.passed for finding in found)
    more = f", {let_through} let through by allow_schema_change" if let_through else ""
    words = (
        f"Before training the data was compared with what the champion, {checked.against}, was trained on: "
        f"{len(found)} checks, {len(found) - let_through} passed{more}."
    )
    kinds = Counter(finding.check for finding in found)
    passed = Counter(finding.check for finding in found if finding.passed)
    counts = [
        (kind, "table" if kind == "rows" else f"{n:,} column{'s' * (n > 1)}", f"{passed[kind]:,}")
        for kind, n in kinds.items()
    ]
    tables = [Table("Checks", ("check", "of", "passed"), counts, (2,))]
    changed = [finding for finding in found if changes(finding)]
    if changed:
        tables.append(_changed(changed))
    return Section(title, [words], tables)


def changes(finding: Finding) -> bool:
    """Whether it says that something is not as it was, allowed or not.

    >>> changes(Finding("a", "null share", "2.00%", "at most 7.00% (2.00% before, max_null_rise 0.05)", True))
    False
    >>> changes(Finding("a", "null share", "2.10%", "at most 7.00% (2.00% before, max_null_rise 0.05)", True))
    True
    >>> changes(Finding("b", "new categories", "0.0%", "at most 20.0% (max_new_categories)", True))
    False
    """
    same = {
        "null share": f"({finding.value} before" in finding.limit,
        "new categories": finding.value == "0.0%",
        "type": finding.value == finding.limit,
    }
    return not finding.passed or not same.get(finding.check, True)


def _changed(found: Sequence[Finding]) -> Table:
    rows = [
        (f.column, f.check, f.value, f.limit, "passed" if f.passed else "let through")
        for f in found[:MOST_CHANGES]
    ]
    more = f", {MOST_CHANGES} of {len(found):,}" if len(found) > MOST_CHANGES else ""
    return Table(
        f"What is not as it was{more}", ("column", "check", "now", "allowed", "the gate’s word"), rows
    )
