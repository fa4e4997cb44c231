"""What is shipped: the wheel, alone in an environment elsewhere, and the archive for clusters."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.bench.network import Cluster
from sparkopt.launch.session import PROFILES
from tests.jobs.running import ROOT, SUBMIT, environment

pytestmark = pytest.mark.usefixtures("installs")

BUILT_FROM = [
    "sparkopt",
    "conf",
    "jobs",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
]
FLAGS = ["--features", "a,b", "--label", "y", "--loss", "squared_error", "--reg-param", "0.1"]


def run(*line: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees nothing of the checkout."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYSPARK", "SPARK"))
    }
    done = subprocess.run(
        [str(part) for part in line],
        cwd=cwd,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what git has, so that nothing else can come along."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z", *BUILT_FROM],
                            cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*build, "--wheel-dir", folder, folder / "source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_profiles_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name in (*(f"{profile}.conf" for profile in PROFILES), "gpus.py", "log4j2.properties"):
            assert archive.read(f"sparkopt/conf/{name}") == (ROOT / "conf" / name).read_bytes()
        (points,) = (name for name in names if name.endswith("/entry_points.txt"))
        parsed = configparser.ConfigParser()
        parsed.read_string(archive.read(points).decode())
    assert dict(parsed["console_scripts"]) == {"sparkopt": "sparkopt.jobs.cli:main"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sparkopt").rglob("*.py")}
    scripts = {
        path.relative_to(ROOT / "jobs") for kind in ("*.py", "dags/*.py") for path in (ROOT / "jobs").glob(kind)
    }
    scripts = {f"sparkopt/scripts/{path}" for path in scripts}
    assert {"sparkopt/scripts/train.py", "sparkopt/scripts/dags/training_pipeline.py"} <= scripts <= names
    held = {name for name in names if name.endswith(".py")} - {"sparkopt/conf/gpus.py"} - scripts
    assert held == modules
    assert not {name.split("/")[0] for name in names} - {"sparkopt", points.split("/")[0]}


def trained(command: Path, table: str, folder: Path, cwd: Path) -> dict:
    """Train with an installed command; return the manifest."""
    run(command, "train", "--parquet", table, *FLAGS, "--output", folder / "out", cwd=cwd)
    return json.loads((folder / "out" / "manifest.json").read_text())


def test_the_command_trains_without_a_checkout(wheel, table, tmp_path):
    """Only the wheel is installed; what it depends on is borrowed from here."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = run(python, "-c", "import sparkopt; print(sparkopt.__file__)", cwd=tmp_path).stdout.strip()
    assert home.startswith(str(site))
    manifest = trained(tmp_path / "env" / "bin" / "sparkopt", table, tmp_path, tmp_path)
    assert manifest["git_commit"] is None
    assert manifest["config"]["profile"] == "local"
    assert manifest["metrics"]["r2"] > 0.9


def test_make_dist_ships_all_that_a_machine_needs(table, tmp_path):
    """The wheel with real dependencies and Spark; the archive on executors that have nothing of it installed."""
    run("make", "dist", cwd=ROOT, PATH=os.environ["PATH"])
    (built,) = (ROOT / "dist").glob("sparkopt-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    commands = tmp_path / "env" / "bin"
    run(
        commands / "pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "requirements/test.txt",
        f"{built}[spark]",
        cwd=tmp_path,
    )
    manifest = trained(commands / "sparkopt", table, tmp_path, tmp_path)
    assert manifest["metrics"]["r2"] > 0.9
    assert "loss.png" not in manifest["outputs"]  # no matplotlib there: a warning, not a failure

    archive = ROOT / "dist" / "sparkopt-environment.tar.gz"
    with tarfile.open(archive) as packed:
        inside = [name.partition("/site-packages/")[2] for name in packed.getnames()]
    names = {name.split("/")[0] for name in inside}
    assert {"sparkopt", "numpy", "pyarrow", "scipy", "cv2"} <= names
    assert "pyspark" not in names
    with Cluster.up(workers=1, loopback=True) as cluster:
        settings = {**cluster.settings, "spark.driver.memory": "1g", "spark.executorEnv.PYTHONPATH": ""}
        settings["spark.pyspark.python"] = "./environment/bin/python"
        settings["spark.pyspark.driver.python"] = sys.executable
        given = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
        there = {key: value for key, value in environment().items() if not key.startswith("PYSPARK")}
        line = [SUBMIT, "--properties-file", ROOT / "conf/standalone.conf", "--archives", f"{archive}#environment"]
        job = [ROOT / "jobs/train.py", "--parquet", table, *FLAGS, "--engine", "driver"]
        done = subprocess.run(
            [str(part) for part in [*line, *given, *job, "--output", tmp_path / "cluster"]],
            cwd=tmp_path,
            env=there,
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
