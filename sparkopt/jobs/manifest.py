"""The manifest of a run: job, flags, inputs, versions and results."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import sparkopt
from sparkopt.io.fingerprint import digest
from sparkopt.io.secrets import masked
from sparkopt.jobs.locations import JobLocation
from sparkopt.values import dataclass

__all__ = ["COMPLETE", "GATE_NOT_MET", "UNFINISHED", "JobIdentity", "config_of", "find", "now", "unchanged", "write"]

FORMAT = 1
COMPLETE, GATE_NOT_MET, UNFINISHED = "complete", "gate not met", "unfinished"
VERSIONS = ("pyspark", "numpy", "pyarrow", "torch")
OUTSIDE = ("output", "output_mode", "log_format", "profile", "remote", "on", "force", "config", "mlflow")
"""Flags that do not change what a run computes."""


@dataclass(frozen=True)
class JobIdentity:
    """What determines a run's result: of two runs with equal identities, one is enough.

    Parameters
    ----------
    job : str
        The job.
    config : mapping
        Its flags, secrets masked.
    inputs : mapping
        Fingerprints of the inputs; None for an input whose changes cannot be detected.
    """

    job: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether all inputs have a fingerprint."""
        return all(value is not None for value in self.inputs.values())

    @property
    def digest(self) -> str:
        """16 characters that identify it."""
        decisive = {name: value for name, value in self.config.items() if name not in OUTSIDE}
        return digest({"job": self.job, "config": decisive, "inputs": dict(self.inputs)})


def config_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags of a run in the form of ``--config``; secrets are masked."""
    values = {name: value for name, value in vars(args).items() if name not in ("config", "path", "source")}
    source = getattr(args, "source", None)
    if source is not None:
        values[source.kind] = [*source.paths] if source.more else source.location
    found: dict[str, Any] = masked(dict(sorted(values.items())))
    return found


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(timezone.utc)


def find(output: JobLocation, name: str) -> dict[str, Any] | None:
    """Return the manifest of an earlier run, or None where there is none that can be read."""
    file = output.child(name)
    if not file.exists():
        return None
    try:
        found = json.loads(file.read())
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def unchanged(job: str, output: str, earlier: Mapping[str, Any], *, tracked: bool) -> list[str]:
    """Return lines for a run that has nothing to do: that it did nothing, and the figures of the earlier run.

    Parameters
    ----------
    job, output : str
        The job's name, and the flag.
    earlier : mapping
        The manifest of the earlier run.
    tracked : bool
        Whether the flags ask for a run in MLflow.
    """
    verb = job.partition("-")[0]
    does = f"{verb}es" if verb.endswith("s") else f"{verb}s"
    when = f"{datetime.fromisoformat(earlier['ended']):%Y-%m-%d %H:%M} UTC"
    figures = (f"{name} {value:.6g}" for name, value in earlier["metrics"].items() if isinstance(value, (int, float)))
    return [
        f"nothing to do: nothing was {verb.removesuffix('e')}ed. {output} holds the result of the same flags and "
        f"data, of {when}. --force {does} again.",
        "then      " + "  ".join(figures),
        *([f"mlflow    no run was logged. --force {does} again, and logs it."] if tracked else []),
    ]


def write(
    folder: Path,
    name: str,
    *,
    identity: JobIdentity,
    status: str,
    metrics: Mapping[str, Any],
    outputs: Mapping[str, str],
    started: datetime,
    where: Mapping[str, str | None],
) -> dict[str, Any]:
    """Write the manifest into a local folder, and return it.

    Parameters
    ----------
    folder, name : Path, str
        The folder, and the file's name.
    identity : JobIdentity
        The run's identity.
    status : str
        How it ended.
    metrics, outputs : mapping
        Figures, and names of files and folders with their descriptions.
    started : datetime
        When the run began; it ends now.
    where : mapping
        Where it ran.
    """
    ended = now()
    content = {
        "format": FORMAT,
        "job": identity.job,
        "status": status,
        "identity": identity.digest,
        "config": dict(identity.config),
        "data": dict(identity.inputs),
        "versions": _versions(),
        "spark": dict(where),
        "git_commit": git_commit(),
        "metrics": dict(metrics),
        "receipt": next((name for name in outputs if name == "receipt.json"), None),
        "outputs": dict(outputs),
        "started": started.isoformat(timespec="milliseconds"),
        "ended": ended.isoformat(timespec="milliseconds"),
        "seconds": round((ended - started).total_seconds(), 3),
    }
    (folder / name).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    return content


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"sparkopt": sparkopt.__version__, "python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """Return the commit of this code's checkout, with ``-dirty`` where files changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):  # git is missing: the commit is not known
        return None
    return found.stdout.strip() or None
