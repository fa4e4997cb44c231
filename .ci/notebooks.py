"""Run the notebooks, each in a fresh kernel, and keep their outputs: small, and without anything on standard error.

Usage, in .venv: pip install nbclient ipykernel && python .ci/notebooks.py [NAME ...]
"""

import base64
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
COLOURS = 4000
"""Colours of a plot, at most; a picture with more holds photographs, and is kept as JPEG."""
WIDTH, OF_PHOTOGRAPHS = 900, 760
"""Pixels of a picture's width, at most."""
SETTINGS = ("spark.master=local[2]", "spark.ui.enabled=false", "spark.sql.shuffle.partitions=2")
OUTPUTS = ("data", "name", "output_type", "text")


def refresh(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=900, kernel_name="python3", record_timing=False, resources=resources
        ).execute()
    for cell, run in zip(saved["cells"], notebook.cells, strict=True):
        if cell["cell_type"] == "code":
            cell["outputs"] = [small(output) for output in run.outputs]
            cell["execution_count"] = run.execution_count
            if any(output.get("name") == "stderr" for output in cell["outputs"]):
                sys.exit(f"{path.name} writes to standard error: {run.outputs}")
    path.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


def small(output: dict) -> dict:
    """Return what is kept of an output."""
    kept = {key: output[key] for key in OUTPUTS if key in output}
    if "data" in kept:
        kept["data"] = dict(kept["data"])
        kept["metadata"] = {}
        if "image/png" in kept["data"]:
            kept["data"].pop("text/plain", None)
            kind, content = recoded(base64.b64decode(kept["data"].pop("image/png")))
            kept["data"][kind] = base64.b64encode(content).decode()
    if output["output_type"] == "execute_result":
        kept["execution_count"] = output["execution_count"]
    return kept


def recoded(content: bytes) -> tuple[str, bytes]:
    """Return a picture's type and bytes: few colours, or JPEG where it holds photographs."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    plot, buffer = picture.getcolors(COLOURS) is not None, io.BytesIO()
    width = WIDTH if plot else OF_PHOTOGRAPHS
    picture.thumbnail((width, 10 * width))
    if plot:
        picture.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=45, optimize=True)
    return "image/png" if plot else "image/jpeg", buffer.getvalue()


if __name__ == "__main__":
    os.environ.update(
        PYSPARK_SUBMIT_ARGS=" ".join([*(f"--conf {setting}" for setting in SETTINGS), "pyspark-shell"]),
        SPARK_LOCAL_IP="127.0.0.1",
        SPARKOPT_PROGRESS="0",  # bars that are gone before anybody reads the outputs
    )
    for name in sys.argv[1:] or sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")):
        refresh(ROOT / "notebooks" / f"{name}.ipynb")
