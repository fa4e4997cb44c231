"""The session's settings of Hadoop's file systems, as pyarrow's are opened with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sparkopt.io.hadoop import settings_of


def test_every_thread_has_the_settings_of_the_session(spark):
    """Spark's active session is a thread's own; fits that run at the same time have threads of theirs."""
    spark.conf.set("fs.gs.project.id", "mine")
    try:
        with ThreadPoolExecutor(1) as pool:
            found = [settings_of("gs://bucket/x"), pool.submit(settings_of, "gs://bucket/x").result()]
    finally:
        spark.conf.unset("fs.gs.project.id")
    assert [settings["fs.gs.project.id"] for settings in found] == ["mine", "mine"]
