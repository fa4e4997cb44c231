"""Packaging of sparkopt: the core stays small, everything heavy is an extra."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CORE = [
    "pyspark>=4.1",
    "numpy>=1.26",
    "pandas>=2.2,<3",  # Spark 4.3 refuses pandas 3
    "pyarrow>=15",
    "scipy>=1.11",
    "threadpoolctl>=3.1",
    "tqdm>=4.66",
]

EXTRAS = {
    "images": ["opencv-python-headless>=4.9"],
    "connect": [
        "googleapis-common-protos>=1.71",
        "grpcio>=1.76",
        "grpcio-status>=1.76",
        "zstandard>=0.25",
    ],
    "codecs": ["imagecodecs>=2024.1", "soundfile>=0.13"],
    "yaml": ["pyyaml>=6"],
    "mlflow": ["mlflow-skinny>=2.10"],
    "deep": ["torch>=2.4", "safetensors>=0.4", "torchmetrics>=1.2"],
    "tensorboard": ["tensorboard>=2.15"],
    "report": ["matplotlib>=3.8"],
    "demo": ["scikit-learn>=1.4"],
}
EXTRAS["dist"] = ["venv-pack>=0.2"]
EXTRAS["test"] = [
    *EXTRAS["images"],
    *EXTRAS["connect"],
    *EXTRAS["codecs"],
    *EXTRAS["deep"],
    *EXTRAS["mlflow"],
    *EXTRAS["tensorboard"],
    *EXTRAS["report"],
    *EXTRAS["demo"],
    *EXTRAS["yaml"],
    "chispa>=0.10",
    "hypothesis>=6.100",
    "pillow>=10",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.7",
]
EXTRAS["dev"] = [*EXTRAS["test"], "mypy>=1.13", "pandas-stubs<3", "ruff>=0.8"]

PROFILES = ("*.conf", "gpus.py", "log4j2.properties")


class BuildWithProfiles(build_py):
    """Puts the profiles of conf/ into the wheel; in an editable install the checkout's own are found."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "sparkopt" / "conf"
            target.mkdir(parents=True, exist_ok=True)
            for pattern in PROFILES:
                for path in Path(__file__).with_name("conf").glob(pattern):
                    shutil.copy2(path, target / path.name)


setup(
    name="sparkopt",
    version="0.1.0",
    description="Train models on data that lives in Spark, with less compute, memory and network.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["sparkopt", "sparkopt.*"]),
    package_data={"sparkopt": ["py.typed"]},
    cmdclass={"build_py": BuildWithProfiles},
    entry_points={"console_scripts": ["sparkopt = sparkopt.jobs.cli:main"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering",
    ],
)
