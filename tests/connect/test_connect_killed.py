"""A client of Spark Connect that was killed in a fit, and a new one that makes the same call: it resumes."""

from __future__ import annotations

import pytest

from tests.training.test_resume_parquet import check_resumed, write_rows

pytestmark = pytest.mark.usefixtures("jvms", "kills")


def test_the_same_call_by_a_new_client_resumes(spark, server, tmp_path):
    write_rows(spark, tmp_path)
    check_resumed(tmp_path, SPARK_REMOTE=server, JAVA_HOME="/nowhere")
