"""A wheel of the sparkopt that runs here. A logged model carries it, so that no index need have the package.

The result is that of ``pip wheel`` for the same files, and equal packages give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from pathlib import Path

import sparkopt

__all__ = ["write_wheel"]

FOLDERS = {
    "conf": ("conf", ("*.conf", "gpus.py", "log4j2.properties")),
    "jobs": ("scripts", ("*.py", "dags/*.py")),
}
"""Folders next to a checkout's package, their names in the package, and what a wheel has of them (setup.py)."""
WHEEL = "Wheel-Version: 1.0\nGenerator: sparkopt\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
TEXTS = ("METADATA", "entry_points.txt", "licenses/LICENSE")
"""What is taken over from the installed package's metadata."""
THEN = (1980, 1, 1, 0, 0, 0)
"""The time of all files."""


def write_wheel(folder: Path) -> Path:
    """Write the wheel of this package into a folder, and return its path.

    Parameters
    ----------
    folder : Path
        An existing folder.

    Returns
    -------
    Path
        ``sparkopt-VERSION-py3-none-any.whl`` in it.

    Raises
    ------
    PackageNotFoundError
        Where sparkopt is not installed but on the path alone, as a checkout or an archive: only an installed package
        has the metadata.
    """
    installed, package = _installed(), Path(sparkopt.__file__).parent
    if not package.is_dir():
        raise PackageNotFoundError("sparkopt")
    info = f"sparkopt-{installed.version}.dist-info"
    files = {**_code(package), **{f"{info}/{name}": text for name, text in _metadata(installed).items()}}
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    wheel = folder / f"sparkopt-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, THEN), content, zipfile.ZIP_DEFLATED)
    return wheel


def _installed() -> Distribution:
    """Return the installed package: what a build leaves next to a checkout is found earlier, but has another form."""
    for found in distributions(name="sparkopt"):
        if found.read_text("METADATA") is not None:
            return found
    raise PackageNotFoundError("sparkopt")


def _code(package: Path) -> dict[str, bytes]:
    """Return the package's files by their names in the wheel; a checkout has some folders next to the package."""
    own = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    found = {f"sparkopt/{path.relative_to(package).as_posix()}": path.read_bytes() for path in own}
    if not (package / "conf").is_dir():
        for folder, (name, patterns) in FOLDERS.items():
            beside = package.parent / folder
            for path in (path for pattern in patterns for path in beside.glob(pattern)):
                found[f"sparkopt/{name}/{path.relative_to(beside).as_posix()}"] = path.read_bytes()
    return dict(sorted(found.items()))


def _metadata(installed: Distribution) -> dict[str, bytes]:
    texts = {name: installed.read_text(name) for name in TEXTS}
    return {"WHEEL": WHEEL.encode()} | {name: text.encode() for name, text in texts.items() if text is not None}


def _record(files: dict[str, bytes], own: str) -> bytes:
    """Return the list of all files with their hashes, by which installers check them."""
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{own},,", ""]).encode()
