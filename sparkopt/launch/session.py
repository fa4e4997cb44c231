"""A SparkSession from one of the profiles in ``conf/``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sparkopt.errors import ParameterError
from sparkopt.launch.class_archive import starts_local_jvm, use_archive
from sparkopt.launch.local_jvm import start_jvm
from sparkopt.launch.python_daemon import MODULE, can_be_started
from sparkopt.solver.callbacks import in_notebook

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["PROFILES", "is_classic", "profile_path", "read_profile", "session"]

PROFILES = ("local", "notebook", "standalone", "yarn", "kubernetes", "databricks", "gpu")
"""Names of the profiles that come with the package."""


def profile_path(profile: str | Path) -> Path:
    """Return the file of a profile.

    Parameters
    ----------
    profile : str or Path
        One of ``PROFILES``, or a file.

    Raises
    ------
    ParameterError
        Where there is neither.
    """
    if profile in PROFILES:
        package = Path(__file__).parents[1]  # a wheel has conf/ in the package, a checkout next to it
        for folder in (package / "conf", package.parent / "conf"):
            if (folder / f"{profile}.conf").is_file():
                return folder / f"{profile}.conf"
    if not Path(profile).is_file():
        raise ParameterError(
            f"profile {str(profile)!r} does not exist: name a file, or one of {', '.join(PROFILES)}."
        )
    return Path(profile)


def read_profile(profile: str | Path) -> dict[str, str]:
    """Read a profile, a file in the style of ``spark-defaults.conf``.

    Parameters
    ----------
    profile : str or Path
        One of ``PROFILES``, or a file: one ``key value`` per line; ``#`` begins a comment.

    Returns
    -------
    dict
        The settings. In options of the driver's JVM, ``conf/`` is replaced by the path of the profile's folder.

    Raises
    ------
    ParameterError
        Where the file does not exist or a line has no value.
    """
    path = profile_path(profile)
    settings = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, _, value = stripped.partition(" ")
        if not value.strip():
            raise ParameterError(f"{path}, line {number}: {key!r} has no value.")
        settings[key] = value.strip()
    options = settings.get("spark.driver.extraJavaOptions")
    if options is not None:  # Java takes a relative path from where the process began
        settings["spark.driver.extraJavaOptions"] = options.replace("=conf/", f"={path.resolve().parent}/")
    return settings


def session(
    profile: str | Path | None = None, app_name: str = "sparkopt", settings: dict[str, str] | None = None
) -> SparkSession:
    """Return the running SparkSession, or start one.

    Parameters
    ----------
    profile : str, Path or None, default None
        "local", "notebook", "standalone", "yarn", "kubernetes", "databricks", "gpu", or a file in the style of
        ``spark-defaults.conf``: the files that ``spark-submit --properties-file conf/NAME.conf`` reads. None leaves
        everything to Spark's own settings; in a Jupyter kernel it means "notebook".
    app_name : str, default "sparkopt"
        Name in Spark's user interface.
    settings : dict or None, default None
        Settings that win over the profile's.

    Notes
    -----
    Under ``spark-submit`` the profile is ignored: the command has its own settings. So it is on Spark Connect
    (SPARK_REMOTE, or ``spark.remote`` in ``settings``), whose server has them. Where a session is running already,
    settings that need a new one stay as they are. In local mode, workers use the same Python as this process
    unless PYSPARK_PYTHON is set, and start with sparkopt's modules imported (``spark.python.daemon.module``).

    In local mode, Spark's JVM starts from an archive of its classes in ``~/.cache/sparkopt``, which the first session
    writes when its process ends. SPARKOPT_CLASS_ARCHIVE=off turns that off.

    In a Jupyter kernel, and with the profile "notebook", a new JVM writes its standard error (Spark's log and that of
    Python workers) to a file instead of the cell. ``spark.conf.get("spark.sparkopt.log")`` is its path.

    Examples
    --------
    >>> import sparkopt
    >>> spark = sparkopt.session(app_name="churn")  # and profile="yarn", say, where none is running yet
    >>> spark.range(3).count()
    3
    """
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # how spark-submit tells its Python process where its JVM is
    quiet = (profile == "notebook" or in_notebook()) and not submitted and is_classic(settings or {})
    if profile in (None, "notebook"):
        profile = "notebook" if quiet else None
    is_read = profile and not submitted and is_classic(settings or {})
    chosen = {**(read_profile(profile) if profile and is_read else {}), **(settings or {})}
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if is_classic(chosen):
        chosen = use_archive(_python_daemon(chosen) | chosen)
    if quiet:
        _start_quietly({"spark.app.name": app_name, **chosen})
    elif is_classic(chosen) and starts_local_jvm(chosen):
        start_jvm({"spark.app.name": app_name, **chosen})
    builder = SparkSession.builder
    if is_classic(chosen):  # the application of a server has its name, and serverless compute refuses another
        builder = builder.appName(app_name)
    for key, value in chosen.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _python_daemon(chosen: dict[str, str]) -> dict[str, str]:
    """Return the setting by which the Python workers of a new session in local mode start with imports done."""
    from pyspark import SparkContext

    is_new = SparkContext._active_spark_context is None and "PYSPARK_GATEWAY_PORT" not in os.environ
    is_plain = os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell") == "pyspark-shell"
    master = chosen.get("spark.master") or os.environ.get("MASTER") or "local"
    python = chosen.get("spark.pyspark.python", os.environ["PYSPARK_PYTHON"])
    if is_new and is_plain and master.partition("[")[0] == "local" and can_be_started(python):
        return {"spark.python.daemon.module": MODULE}
    return {}


def is_classic(settings: dict[str, str]) -> bool:
    """Whether a session will be one of Spark Classic, whose JVM this process starts."""
    from pyspark.sql.utils import is_remote
    from pyspark.util import is_remote_only

    return not (is_remote_only() or is_remote() or "SPARK_REMOTE" in os.environ or "spark.remote" in settings)


def _start_quietly(settings: dict[str, str]) -> None:
    """Start Spark with a JVM whose standard error is a file; where a JVM is running, it stays as it is."""
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:
        return
    handle, log = tempfile.mkstemp(prefix="spark-", suffix=".log")
    conf = SparkConf().setAll([*settings.items(), ("spark.sparkopt.log", log)])
    with os.fdopen(handle, "wb") as errors:
        try:
            gateway = launch_gateway(conf, {"stderr": errors})  # type: ignore[no-untyped-call]
        except PySparkRuntimeError:  # it names no reason: the JVM's own words do
            sys.stderr.write(Path(log).read_text(encoding="utf-8", errors="replace"))
            raise
    SparkContext(conf=conf, gateway=gateway)
