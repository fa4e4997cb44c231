"""What pyproject.toml, which describes the package, cannot say: the profiles of conf/ belong to the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONF = Path(__file__).with_name("conf")
PROFILES = ("*.conf", "gpus.py", "log4j2.properties")


class BuildWithProfiles(build_py):
    """Puts the profiles of conf/ into the wheel; in an editable install the checkout's own are found."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "sparkopt" / "conf"
            target.mkdir(parents=True, exist_ok=True)
            for pattern in PROFILES:
                for path in CONF.glob(pattern):
                    shutil.copy2(path, target / path.name)


setup(cmdclass={"build_py": BuildWithProfiles})
