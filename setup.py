"""What pyproject.toml, which describes the package, cannot say: profiles, jobs' scripts and DAGs are in the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
FOLDERS = {
    "conf": ("conf", ("*.conf", "gpus.py", "log4j2.properties")),
    "jobs": ("scripts", ("*.py", "dags/*.py")),  # sparkopt.jobs is a package of its own
}
"""Folders here, their names in the package, and what is taken of them."""


class BuildWithFolders(build_py):
    """Puts these folders into the wheel; in an editable install the checkout's own are found."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder, (name, patterns) in FOLDERS.items():
                for path in (path for pattern in patterns for path in (ROOT / folder).glob(pattern)):
                    target = Path(self.build_lib) / "sparkopt" / name / path.relative_to(ROOT / folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target)


setup(cmdclass={"build_py": BuildWithFolders})
