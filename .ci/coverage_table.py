"""Print coverage by package, as a table of Markdown, from the report that `coverage json` writes.

Usage: python .ci/coverage_table.py build/coverage/report.json
"""

import json
import sys
from collections import Counter
from pathlib import Path


def by_package(files: "dict[str, dict]") -> "dict[str, Counter]":
    """Add up the files' figures; modules outside a package are together."""
    found: dict[str, Counter] = {}
    for name, file in files.items():
        parts = Path(name).parts[Path(name).parts.index("sparkopt") + 1 :]
        figures = {key: value for key, value in file["summary"].items() if isinstance(value, int)}
        found.setdefault(parts[0] if len(parts) > 1 else "(modules)", Counter()).update(figures)
    return found


def row(name: str, figures: Counter) -> str:
    """Return a line of the table."""
    lines, branches = figures["num_statements"], figures["num_branches"]
    both = share(figures["covered_lines"] + figures["covered_branches"], lines + branches)
    return (
        f"| {name} | {lines:,} | {share(figures['covered_lines'], lines)} | {branches:,} "
        f"| {share(figures['covered_branches'], branches)} | {both} |"
    )


def share(part: int, whole: int) -> str:
    """Return a percentage, rounded down: 100% is all of it."""
    return f"{1000 * part // whole / 10:.1f}%" if whole else "–"


if __name__ == "__main__":
    packages = by_package(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["files"])
    print("| package | lines | covered | branches | covered | both |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in sorted(packages):
        print(row(name, packages[name]))
    print(row("**all**", sum(packages.values(), Counter())))
