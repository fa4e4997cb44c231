"""Check text files: they are whole, end in one newline, and YAML, JSON and TOML can be read; notebooks show no error.

Usage: python .ci/files.py FILE...     (pre-commit gives those of a commit; tests/test_packaging.py all of them)
"""

import json
import sys
from pathlib import Path

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BYTES = 500_000
"""More is data, or a notebook with large outputs."""
MARKS = ("<" * 7 + " ", ">" * 7 + " ")


class Loader(yaml.SafeLoader):
    """Reads tags of other programs, such as those of MkDocs, without knowing them."""


Loader.add_multi_constructor("", lambda loader, suffix, node: None)
PARSERS = {
    ".ipynb": json.loads,
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yml": lambda text: yaml.load(text, Loader),  # noqa: S506  # derives from SafeLoader
    ".yaml": lambda text: yaml.load(text, Loader),  # noqa: S506
    ".cff": yaml.safe_load,
}


def problems(path: Path) -> "list[str]":
    """Return what is wrong with a file."""
    content = path.read_bytes()
    if b"\0" in content:
        return []
    found = [f"has {len(content):,} bytes; {BYTES:,} is the most"] if len(content) > BYTES else []
    text = content.decode()
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        found.append("must end in one newline")
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip() and path.suffix != ".md":
            found.append(f"line {number} ends in a blank")
        if line.startswith(MARKS):
            found.append(f"line {number} is the mark of a merge conflict")
    try:
        parsed = PARSERS.get(path.suffix, lambda text: None)(text)
    except (ValueError, yaml.YAMLError) as error:
        return [*found, f"cannot be read: {' '.join(str(error).split())}"]
    if path.suffix == ".ipynb":
        outputs = [output for cell in parsed["cells"] for output in cell.get("outputs", ())]
        found += [f"shows an error: {one['ename']}" for one in outputs if one["output_type"] == "error"]
    return found


if __name__ == "__main__":
    wrong = [f"{name}: {problem}" for name in sys.argv[1:] for problem in problems(Path(name))]
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
