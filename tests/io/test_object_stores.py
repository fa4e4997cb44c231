"""Object stores as Arrow opens them with settings of Hadoop: what is understood, and what is left to Spark."""

from __future__ import annotations

import pickle

import pytest
from pyarrow import fs

from sparkopt.errors import ParameterError
from sparkopt.io.object_stores import ObjectStores

HADOOP = {  # as core-default.xml has them
    "fs.s3a.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
    "fs.s3a.aws.credentials.provider": (
        "\n    org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider,\n"
        "    org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider,\n"
        "    software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider,\n"
        "    org.apache.hadoop.fs.s3a.auth.IAMInstanceCredentialsProvider\n  "
    ),
    "fs.s3a.path.style.access": "false",
    "fs.s3a.connection.ssl.enabled": "true",
    "fs.abfss.impl": "org.apache.hadoop.fs.azurebfs.SecureAzureBlobFileSystem",
    "fs.gs.impl": "org.apache.hadoop.fs.gs.GoogleHadoopFileSystem",
}
KEYS = {"fs.s3a.access.key": "name", "fs.s3a.secret.key": "hidden/words"}
MINIO = {"fs.s3a.endpoint": "http://127.0.0.1:9000", **KEYS}
AZURE = "account.dfs.core.windows.net"


def located(uri, **settings):
    return ObjectStores({**HADOOP, **settings}.get).location(uri)


S3 = {
    "keys and an endpoint": (
        MINIO,
        {"access_key": "name", "secret_key": "hidden/words", "endpoint_override": "127.0.0.1:9000", "scheme": "http",
         "region": "us-east-1", "force_virtual_addressing": False},
    ),
    "an endpoint without a scheme": (
        {**MINIO, "fs.s3a.endpoint": "minio:9000/", "fs.s3a.connection.ssl.enabled": "false"},
        {"endpoint_override": "minio:9000", "scheme": "http"},
    ),
    "the region of an endpoint": (
        {**KEYS, "fs.s3a.endpoint": "s3.eu-west-1.amazonaws.com"},
        {"region": "eu-west-1", "scheme": "https", "force_virtual_addressing": True},
    ),
    "the central endpoint": (
        {**KEYS, "fs.s3a.endpoint": "s3.amazonaws.com", "fs.s3a.endpoint.region": "eu-west-1"},
        {"region": "eu-west-1", "endpoint_override": ""},
    ),
    "a token": ({**MINIO, "fs.s3a.session.token": "t"}, {"session_token": "t"}),
    "settings of a bucket": (
        {**MINIO, "fs.s3a.bucket.rows.access.key": "other", "fs.s3a.bucket.rows.endpoint.region": "eu-north-1"},
        {"access_key": "other", "secret_key": "hidden/words", "region": "eu-north-1"},
    ),
    "settings of another bucket": ({**MINIO, "fs.s3a.bucket.b.access.key": "other"}, {"access_key": "name"}),
    "no keys": ({"fs.s3a.endpoint.region": "eu-west-1"}, {"access_key": None, "anonymous": False}),
    "keys that no provider takes": (
        {**MINIO, "fs.s3a.aws.credentials.provider": "x.EnvironmentVariableCredentialsProvider"},
        {"access_key": None},
    ),
    "nobody": (
        {**MINIO, "fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider"},
        {"anonymous": True, "access_key": None},
    ),
    "encrypted by the server": ({**MINIO, "fs.s3a.encryption.algorithm": "SSE-KMS"}, {"access_key": "name"}),
}  # fmt: skip


@pytest.mark.parametrize("name", S3)
def test_settings_of_s3(name):
    settings, expected = S3[name]
    location = located("s3a://rows/May%202026/a%25.parquet", **settings)
    assert location.path == "rows/May 2026/a%.parquet"
    assert location.filesystem.type_name == "s3"
    _, (options,) = location.filesystem.__reduce__()
    assert {key: options[key] for key in expected} == expected
    assert pickle.loads(pickle.dumps(location)) == location
    assert "hidden" not in repr(location) + location.shown


OTHERS = {
    "Google": ("gs://rows/a", {}, "gcs", "rows/a"),
    "Azure": (f"abfss://box@{AZURE}/a%20b", {f"fs.azure.account.key.{AZURE}": "aGlkZGVu"}, "abfs", "box/a b"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_stores(name):
    uri, settings, kind, path = OTHERS[name]
    location = located(uri, **settings)
    assert (location.filesystem.type_name, location.path) == (kind, path)
    assert pickle.loads(pickle.dumps(location)).filesystem.type_name == kind


REFUSED = {
    "a role": ("s3a://rows/a", {**MINIO, "fs.s3a.assumed.role.arn": "arn"}, "fs.s3a.assumed.role.arn is Spark's"),
    "a bucket's role": ("s3a://rows/a", {**MINIO, "fs.s3a.bucket.rows.assumed.role.arn": "arn"}, "is Spark's alone"),
    "a keystore": ("s3a://rows/a", {"hadoop.security.credential.provider.path": "jceks:x"}, "is Spark's alone"),
    "own keys": ("s3a://rows/a", {**MINIO, "fs.s3a.encryption.algorithm": "CSE-KMS"}, "is Spark's alone"),
    "requester pays": ("s3a://rows/a", {**MINIO, "fs.s3a.requester.pays.enabled": "true"}, "is Spark's alone"),
    "a proxy": ("s3a://rows/a", {**MINIO, "fs.s3a.proxy.host": "proxy"}, "fs.s3a.proxy.host is Spark's alone"),
    "a provider": (
        "s3a://rows/a",
        {**MINIO, "fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.auth.AssumedRoleCredentialProvider"},
        "S3's credentials come from AssumedRoleCredentialProvider",
    ),
    "a vendor's": ("s3a://rows/a", {"fs.s3a.impl": "com.vendor.S3"}, "s3a: is opened by com.vendor.S3"),
    "EMR": (
        "s3://rows/a",
        {"fs.s3.impl": "com.amazon.ws.emr.hadoop.fs.EmrFileSystem"},
        "s3: is opened by com.ama",
    ),
    "a key file of Google": ("gs://rows/a", {"fs.gs.auth.service.account.json.keyfile": "k"}, "is Spark's alone"),
    "a login of Google": ("gs://rows/a", {"fs.gs.auth.type": "USER_CREDENTIALS"}, "fs.gs.auth.type is USER_CRED"),
    "OAuth of Azure": (
        f"abfss://box@{AZURE}/a",
        {f"fs.azure.account.auth.type.{AZURE}": "OAuth", "fs.azure.account.key": "hidden"},
        "Azure's credentials are Spark's alone",
    ),
    "no key of Azure": (f"abfss://box@{AZURE}/a", {}, "Azure's credentials are Spark's alone"),
    "HDFS without its library": ("hdfs://names/a", {}, "hdfs: Arrow needs libhdfs: CLASSPATH, and ARROW_LIBHDFS_DIR"),
    "Kerberos": ("viewfs://a/b", {"hadoop.security.authentication": "kerberos"}, "Arrow has no tickets of kerberos"),
    "DBFS": ("dbfs:/a", {}, "dbfs: is opened with Spark's credentials"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_spark_can_open_is_refused(name, monkeypatch):
    uri, settings, message = REFUSED[name]
    monkeypatch.delenv("CLASSPATH", raising=False)
    with pytest.raises(ParameterError, match=message) as error:
        located(uri, **settings)
    assert "hidden" not in str(error.value)


def test_tasks_connect_to_hdfs_themselves(monkeypatch):
    monkeypatch.setenv("CLASSPATH", "/opt/hadoop/a.jar")
    monkeypatch.setenv("ARROW_LIBHDFS_DIR", "/opt/hadoop/lib")
    assert located("hdfs://names/a") is None


def test_a_store_that_cannot_be_reached_is_refused(monkeypatch):
    def unreachable(bucket):
        raise OSError(f"no address of {bucket}")

    monkeypatch.setattr(fs, "resolve_s3_region", unreachable)
    with pytest.raises(ParameterError, match="s3a: cannot be opened by Arrow: no address of rows"):
        located("s3a://rows/a")


def test_each_store_is_opened_once(monkeypatch):
    stores = ObjectStores({**HADOOP, **MINIO, "fs.s3a.bucket.more.access.key": "other"}.get)
    one, other, apart = (stores.location(uri) for uri in ("s3a://rows/a", "s3a://rows/b", "s3a://more/a"))
    assert one.filesystem is other.filesystem
    assert one.filesystem is not apart.filesystem
