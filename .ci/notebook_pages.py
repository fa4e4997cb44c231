"""Notebooks as pages of the documentation: text, code, and the outputs that are committed with them."""

import base64
import json
import re
from pathlib import Path


def write_page(notebook: Path, folder: Path) -> None:
    """Write ``folder/NAME.md`` and its pictures."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    title, *rest = [part for number, cell in enumerate(cells) for part in parts(cell, notebook.stem, number, folder)]
    download = f"This page is a notebook with its results: [{notebook.name}]({notebook.name}) runs it."
    first, _, text = title.partition("\n")
    (folder / f"{notebook.stem}.md").write_text("\n\n".join([first, download, text, *rest]) + "\n", encoding="utf-8")


def parts(cell: dict, name: str, number: int, folder: Path) -> list[str]:
    """Return a cell as Markdown."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    found = [f"```python\n{source}\n```"]
    for index, output in enumerate(cell["outputs"]):
        data = output.get("data", {})
        if drawn := next((kind for kind in ("image/png", "image/jpeg") if kind in data), None):
            picture = folder / f"{name}-{number}-{index}.{drawn.removeprefix('image/')}"
            picture.write_bytes(base64.b64decode("".join(data[drawn])))
            found.append(f"![What the cell draws]({picture.name})")
        elif "text/html" in data:
            lines = (line.strip() for line in "".join(data["text/html"]).splitlines())
            found.append(f'<div class="output">{"".join(lines)}</div>')  # a blank line would end the block
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            found.append(f"```text\n{re.sub('`{3,}', '', text).rstrip()}\n```")
    return found
