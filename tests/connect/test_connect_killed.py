"""A client of Spark Connect that was killed in a fit, and a new one that makes the same call: it resumes."""

from __future__ import annotations

import pytest

from tests.connect.conftest import serving
from tests.training.test_killed_sessions import KILLS, check_kills
from tests.training.test_resume_parquet import check_resumed, write_rows

pytestmark = pytest.mark.usefixtures("jvms", "kills")


@pytest.fixture(scope="module")
def its_server(tmp_path_factory):
    """A server of its own, whose executors have the files of clients that were killed."""
    with serving(tmp_path_factory.mktemp("connect")) as address:
        yield address


def test_the_same_call_by_a_new_client_resumes(spark, its_server, tmp_path):
    write_rows(spark, tmp_path)
    check_resumed(tmp_path, SPARK_REMOTE=its_server, JAVA_HOME="/nowhere")


@pytest.mark.usefixtures("minutes")
@pytest.mark.timeout(900 + 600 * KILLS)
def test_a_killed_client_changes_nothing(its_server, tmp_path):
    check_kills(its_server, tmp_path)
