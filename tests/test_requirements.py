"""The lists of pinned packages (requirements/): complete, consistent, and in step with what the package declares."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
PURPOSES = ("run", "deep", "test")  # each has those before it
APART = {"keras", "jax", "pytensor", "tensorflow", "onnx", "optuna", "dask", "flink", "ray"}
"""Extras that are tested in environments of their own, such as .venv-keras, and for ONNX and Optuna any with
their packages."""
PYTHONS = ("3.10.13", "3.11.7", "3.12.1", "3.13.0")


def pins(name: str, python: str) -> dict[str, str]:
    """The versions that a list gives to a Python on Linux; each line pins one version of one package."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = requirement.specifier
            assert version.operator == "==", line
            assert "+" not in version.version, f"{line}: a build of one machine's index"
            assert not requirement.url, line
            if requirement.marker is None or requirement.marker.evaluate(environment(python)):
                found[canonicalize_name(requirement.name)].append(version.version)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}
    return {name: version for name, (version,) in found.items()}


def environment(python: str) -> dict[str, str]:
    return {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


def asked(name: str) -> list[Requirement]:
    """What a purpose asks for by name, apart from the package's own extras."""
    lines = [line.partition("#")[0].strip() for line in (FOLDER / f"{name}.in").read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith((".", "-"))]


def extras(name: str) -> set[str]:
    """The package's extras that a purpose installs, those of earlier purposes too."""
    text = (FOLDER / f"{name}.in").read_text()
    (own,) = re.findall(r"^\.\[(.+)\]$", text, re.MULTILINE)
    inherited = re.findall(r"^-r (.+)\.in$", text, re.MULTILINE)
    return set(own.split(",")).union(*(extras(other) for other in inherited))


@pytest.fixture(scope="module")
def declared(tmp_path_factory) -> tuple[list[Requirement], set[str]]:
    """The requirements and the extras that a wheel of this checkout would have."""
    target = tmp_path_factory.mktemp("metadata")
    build = "import setuptools.build_meta as b, sys; print(b.prepare_metadata_for_build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, target], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (metadata,) = target.glob("*.dist-info/METADATA")
    fields = Parser().parsestr(metadata.read_text())
    return [Requirement(text) for text in fields.get_all("Requires-Dist")], set(fields.get_all("Provides-Extra"))


def needed(names: set[str], python: str, declared: list[Requirement]) -> list[Requirement]:
    """What these extras need, also through extras that are made of others."""
    found = []
    for requirement in declared:
        wanted = [{**environment(python), "extra": name} for name in ("", *names)]
        if requirement.marker and not any(requirement.marker.evaluate(one) for one in wanted):
            continue
        own = requirement.name == "sparkopt"
        found += needed(requirement.extras - names, python, declared) if own else [requirement]
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_list_has_all_that_its_purpose_asks_for(purpose, python, declared):
    listed = pins(purpose, python)
    wanted = [*asked(purpose), *needed(extras(purpose), python, declared[0])]
    assert len(wanted) > 10
    for requirement in wanted:
        version = listed.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements/{purpose}.txt: make lock"
        assert requirement.specifier.contains(version), f"{requirement}, but {version} is pinned: make lock"


def test_the_tests_have_what_any_extra_needs(declared):
    assert extras("run") < extras("deep") < extras("test") <= declared[1]
    listed = pins("test", PYTHONS[1])
    for requirement in needed(declared[1] - APART, PYTHONS[1], declared[0]):
        version = listed.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement}: add its extra to requirements/test.in, then make lock"
        assert requirement.specifier.contains(version), f"{requirement}, but {version} is pinned: make lock"


def test_the_tests_of_keras_have_what_its_extras_need(declared):
    listed = pins("keras", PYTHONS[1])
    listed["tensorflow"] = listed["tensorflow-cpu"]  # the same, without what it needs on GPUs
    for requirement in needed(extras("keras") | {"tensorflow"}, PYTHONS[1], declared[0]):
        assert requirement.specifier.contains(listed[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_later_purposes_contain_earlier_ones_at_the_same_versions(python):
    run, deep, test = (pins(purpose, python) for purpose in PURPOSES)
    assert run.items() < deep.items() < test.items()
    shared = pins("docs", python).keys() & test.keys()
    assert shared  # ruff formats both the code and the signatures in the reference
    assert {name: pins("docs", python)[name] for name in shared} == {name: test[name] for name in shared}


@pytest.mark.parametrize("python", PYTHONS)
def test_a_first_run_installs_nothing_that_it_does_not_need(python):
    run, deep, test = (set(pins(purpose, python)) for purpose in PURPOSES)
    assert not run & {
        "torch",
        "safetensors",
        "torchmetrics",
        "mlflow-skinny",
        "pytest",
        "ruff",
        "mypy",
        "tensorboard",
    }
    assert {"torch", "safetensors", "torchmetrics"} <= deep
    assert not deep & {"mlflow-skinny", "pytest", "ruff", "mypy", "tensorboard"}
    assert {"pytest", "ruff", "mypy", "mlflow-skinny"} <= test
    assert not [
        name for name in test if name.startswith(("nvidia", "cuda", "triton"))
    ]  # PyTorch's builds pin their own


def test_airflow_has_an_environment_of_its_own():
    listed = pins("airflow", PYTHONS[1])
    assert {canonicalize_name(requirement.name) for requirement in asked("airflow")} <= listed.keys()


PIP_SETTINGS = """
[global]
index-url = https://mirror.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
cert = /etc/company.pem
timeout = 20
[install]
find-links = /srv/wheels /srv/more
"""


def uv_settings(tmp_path: Path, text: str, **variables: str) -> dict[str, str]:
    """What the shell has after ``eval "$(python .ci/uv_settings.py)"``, of uv's."""
    (tmp_path / "pip.conf").write_text(text)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_", "SSL_"))}
    line = f'eval "$({sys.executable} {ROOT}/.ci/uv_settings.py)"; env -0'
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euc", line],
        env={**clean, **home, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    after = dict(part.partition("=")[::2] for part in done.stdout.split("\0"))
    return {key: value for key, value in after.items() if key.startswith(("UV_", "SSL_", "HTTPS_"))}


def test_uv_is_given_the_index_settings_of_pip(tmp_path):
    found = uv_settings(tmp_path, PIP_SETTINGS, PIP_TIMEOUT="30", PIP_PROXY="http://proxy.example:3128")
    assert found == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/srv/wheels,/srv/more",
        "SSL_CERT_FILE": "/etc/company.pem",
        "UV_HTTP_TIMEOUT": "30",  # the environment wins over a file, as in pip
        "HTTPS_PROXY": "http://proxy.example:3128",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


@pytest.mark.parametrize(("value", "expected"), [("1", "1"), ("true", "1"), ("0", None), ("no", None)])
def test_a_machine_without_an_index_stays_without_one(tmp_path, value, expected):
    assert uv_settings(tmp_path, "", PIP_NO_INDEX=value).get("UV_NO_INDEX") == expected


def test_settings_of_uv_itself_stay(tmp_path):
    found = uv_settings(tmp_path, PIP_SETTINGS, UV_DEFAULT_INDEX="https://mine.example/simple", UV_INDEX="")
    assert found["UV_DEFAULT_INDEX"] == "https://mine.example/simple"
    assert found["UV_INDEX"] == ""
    assert found["SSL_CERT_FILE"] == "/etc/company.pem"


def test_a_value_is_data_for_the_shell(tmp_path):
    found = uv_settings(tmp_path, "[global]\nindex-url = https://user:a'$(touch ~/run)b@mirror.example/simple\n")
    assert found["UV_DEFAULT_INDEX"] == "https://user:a'$(touch ~/run)b@mirror.example/simple"
    assert not (tmp_path / "run").exists()


def test_one_of_pips_sections_is_for_installing():
    read = runpy.run_path(str(ROOT / ".ci" / "uv_settings.py"))["pip_settings"]
    lines = "install.index-url='b'\nglobal.index-url='a'\nlist.format='columns'\n:env:.find_links='/x'\n"
    assert read(lines) == {"index-url": "b", "find-links": "/x"}
