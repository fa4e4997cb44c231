"""What the tests against an S3 server share: a bucket, and a server in between that fails as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from pyarrow import fs
from pyspark.sql import SparkSession

from tests.s3.faulty import FaultyServer

BUCKET = "bucket"
KEY, SECRET = "test", "hidden"


@dataclass(frozen=True)
class Store:
    """An S3 server with an empty bucket."""

    port: int
    direct: fs.S3FileSystem

    def files(self, below: str = "") -> list[str]:
        """Return the keys of all files below a folder of the bucket; markers of folders do not count."""
        chosen = fs.FileSelector(f"{BUCKET}/{below}".rstrip("/"), recursive=True, allow_not_found=True)
        files = [info.path for info in self.direct.get_file_info(chosen) if info.type == fs.FileType.File]
        return sorted(path.removeprefix(f"{BUCKET}/") for path in files)

    def uri(self, path: str) -> str:
        """Return the URI of a path in the bucket."""
        return f"s3://{BUCKET}/{path}?endpoint_override=127.0.0.1%3A{self.port}&scheme=http&region=us-east-1"


@pytest.fixture
def store(s3: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server with an empty bucket, and the credentials for it in the environment."""
    if SparkSession.getActiveSession() is not None:
        pytest.skip("this process has a Spark session, by which models would be saved: make test-s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    direct = fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{s3}",
        scheme="http",
        region="us-east-1",
        access_key=KEY,
        secret_key=SECRET,
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )
    direct.create_dir(BUCKET)
    yield Store(s3, direct)
    direct.delete_dir(BUCKET)


@pytest.fixture
def faulty(store: Store) -> Iterator[FaultyServer]:
    """A server before it that passes everything on, until a test sets a fault."""
    server = FaultyServer(store.port)
    yield server
    server.silent = False
    server.close()


@pytest.fixture(scope="session")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """500 rows of 4 features, and their labels."""
    X = np.random.default_rng(0).normal(size=(500, 4))
    return X, X @ [1.0, -2.0, 0.5, 0.0] + 1.0
