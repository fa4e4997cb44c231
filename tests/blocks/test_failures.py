"""What Spark reports is one line, with the way out."""

from __future__ import annotations

import pytest
from pyspark.errors import PySparkException

from sparkopt.blocks.failures import data_errors, missing_system, path_errors
from sparkopt.errors import DataError, FitCancelledError, ParameterError

LACKING = {
    'UnsupportedFileSystemException: No FileSystem for scheme "s3"': "Write s3a: in place of s3:",
    "java.lang.ClassNotFoundException: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found": "hadoop-aws:VERSION",
    'No FileSystem for scheme "gs"': "gcs-connector:hadoop3-VERSION",
    "Class com.google.cloud.hadoop.fs.gcs.GoogleHadoopFileSystem not found": "gcs-connector",
    "Class org.apache.hadoop.fs.azurebfs.SecureAzureBlobFileSystem not found": "hadoop-azure:VERSION",
    'No FileSystem for scheme "ftp2"': "Spark has no file system for ftp2:.",
}


@pytest.mark.parametrize("text", LACKING)
def test_a_file_system_that_spark_lacks_is_named_with_what_to_install(text):
    line = r"^path='s3a://k:\*\*\*@b/x' cannot be used: [^\n]*$"
    with pytest.raises(ParameterError, match=line) as told, path_errors("s3a://k:hidden@b/x"):
        raise PySparkException(f"An error occurred\n\tat java…\nCaused by: {text}\n\tat …")
    assert LACKING[text] in str(told.value)


def test_other_errors_are_left():
    assert missing_system("No space left") == ""
    with pytest.raises(PySparkException), path_errors("s3a://b"):
        raise PySparkException("something else")


CANCELLED = [
    "org.apache.spark.SparkException: [SPARK_JOB_CANCELLED] Job 7 cancelled as part of cancellation of all jobs",
    "Job 3 cancelled part of cancelled job group nightly",
    "[INVALID_HANDLE.OPERATION_CANCELED] … ",
    "(org.apache.spark.SparkSQLException) [OPERATION_CANCELED] Operation has been canceled. SQLSTATE: HY008",
]


@pytest.mark.parametrize("text", CANCELLED)
def test_cancelled_jobs_are_told_as_that(text):
    with pytest.raises(FitCancelledError, match=r"^the fit was cancelled[^\n]*$"), data_errors():
        raise PySparkException(text)


def test_an_application_that_was_shut_down_is_told_as_the_reason():
    with pytest.raises(FitCancelledError, match="cancelled, because SparkContext was shut down"), data_errors():
        raise PySparkException("SparkException: Job 3 cancelled because SparkContext was shut down\n at org.apache")


def test_what_to_do_about_changed_rows_is_said_once_however_many_contexts_there_are():
    changed = "the rows of partition 0 are not what they were when the fit began: 3 rows became 6"
    with pytest.raises(DataError) as told, data_errors(lambda: "a.parquet"), data_errors(lambda: "a.parquet"):
        raise DataError(changed)
    said = str(told.value)
    assert said.startswith(f"{changed}. They are read from a.parquet. Blocks that were lost are read again")
    assert said.count("are read") == 2
