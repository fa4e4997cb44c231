"""Settings of Hadoop's file systems as pyarrow's options."""

from __future__ import annotations

import pytest

from sparkopt.errors import ParameterError
from sparkopt.io import filesystem, hadoop

KEYS = {"access.key": "name", "secret.key": "hidden"}
AMAZON = {"endpoint": "s3.eu-west-1.amazonaws.com"}
PROXY = {"scheme": "http", "host": "proxy"}
S3 = {
    "the region of an endpoint": (AMAZON, {"region": "eu-west-1", "endpoint_override": AMAZON["endpoint"]}),
    "a region that is named": ({**AMAZON, "endpoint.region": "eu-north-1"}, {"region": "eu-north-1"}),
    "Amazon's for all regions": (
        {"endpoint": "https://s3.amazonaws.com/"},
        {"region": None, "endpoint_override": None},
    ),
    "a proxy without a port": ({"proxy.host": "proxy"}, {"proxy_options": {**PROXY, "port": 443}}),
    "its port, unencrypted": (
        {"proxy.host": "proxy", "connection.ssl.enabled": "false"},
        {"proxy_options": {**PROXY, "port": 80}},
    ),
    "a proxy with a login": (
        {"proxy.host": "proxy", "proxy.port": "3128", "proxy.username": "me", "proxy.password": "hidden"},
        {"proxy_options": {**PROXY, "port": 3128, "username": "me", "password": "hidden"}},
    ),
    "keys that no provider takes": (
        {**KEYS, "aws.credentials.provider": "x.ProfileCredentialsProvider"},
        {"access_key": None, "anonymous": None},
    ),
    "keys of a vendor's provider": ({**KEYS, "aws.credentials.provider": "com.Vendor"}, {"access_key": "name"}),
    "a role": (
        {"aws.credentials.provider": "x.auth.AssumedRoleCredentialProvider", "assumed.role.arn": "arn"},
        {"role_arn": "arn"},
    ),
}


@pytest.mark.parametrize("name", S3)
def test_options_of_s3(name):
    given, expected = S3[name]
    options = hadoop.s3_options("rows", {f"fs.s3a.{key}": value for key, value in given.items()})
    assert {key: options.get(key) for key in expected} == expected


def test_a_port_that_is_none_is_refused_by_name(monkeypatch):
    settings = {"fs.s3a.proxy.host": "proxy", "fs.s3a.proxy.port": "http"}
    monkeypatch.setattr(hadoop, "_sources", [lambda names: {n: settings[n] for n in names if n in settings}])
    with pytest.raises(ParameterError, match=r"fs\.s3a\.proxy\.port='http' is not a port"):
        filesystem.resolve("s3a://rows/x", "checkpointDir")


@pytest.mark.parametrize(("kind", "begin"), [("UNAUTHENTICATED", "gs://anonymous@rows/"), ("", "gs://rows/")])
def test_nobodys_login_at_google(kind, begin):
    assert hadoop.gcs_uri("gs://rows/a", {"fs.gs.auth.type": kind}, 9.0) == f"{begin}a?retry_limit_seconds=9"
