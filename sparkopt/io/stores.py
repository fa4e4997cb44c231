"""Opening another machine's file system by its URI: pyarrow's, with the settings that Spark has for it.

What the URI says comes first, then Hadoop's settings of the session (``hadoop``), then pyarrow's own defaults.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from pyarrow import fs

from sparkopt.io.hadoop import azure_options, gcs_uri, has_own_endpoint, s3_options
from sparkopt.io.waiting import LIMIT

__all__ = ["opened"]

CONNECT_SECONDS = 10.0
ATTEMPTS = 9
"""Tries of a request that a server refuses as too busy, or whose connection breaks, over 13 seconds: pauses between
them double. Amazon's "standard" way has a budget of tries for a process's whole life, which long fits use up."""
KEPT = 16
"""File systems of S3 whose connections a process keeps: one for each endpoint and login."""
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ANY_REGION = "us-east-1"


def opened(uri: str, settings: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path there of a URI that ``arrow_uri`` returned.

    Parameters
    ----------
    uri : str
        The URI.
    settings : mapping of str to str
        What ``settings_of`` found for it.

    Raises
    ------
    pyarrow.ArrowInvalid
        For a URI that pyarrow does not know; it repeats the URI.
    OSError
        Where a file system cannot be reached.
    """
    scheme = uri.partition(":")[0]
    if scheme == "s3":
        return _s3(uri, settings)
    if scheme == "gs":
        return fs.FileSystem.from_uri(gcs_uri(uri, settings, LIMIT / 2))  # type: ignore[no-any-return]
    if scheme in ("abfs", "abfss"):
        return _azure(uri, settings)
    return fs.FileSystem.from_uri(uri)  # type: ignore[no-any-return]


def _parts(uri: str) -> tuple[str, str, str, dict[str, str]]:
    """Return user, password, host, and parameters."""
    before, _, query = uri.partition("?")
    authority = before.partition("://")[2].partition("/")[0]
    account, _, host = authority.rpartition("@")
    user, _, password = account.partition(":")
    return unquote(user), unquote(password), host, dict(parse_qsl(query, keep_blank_values=True))


def _s3(uri: str, settings: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    key, secret, bucket, query = _parts(uri)
    # pyarrow reads the URI, and refuses what is wrong with it; with a region it asks nobody for one
    named = uri if "region" in query else f"{uri}{'&' if '?' in uri else '?'}region={_ANY_REGION}"
    try:
        _, path = fs.FileSystem.from_uri(named)
    except ValueError as error:
        raise type(error)(str(error).replace(named, uri)) from None
    options: dict[str, Any] = s3_options(bucket, settings)
    if key:
        options |= {"access_key": key, "secret_key": secret}
        options.pop("session_token", None)
    options |= {name: _plain(value) for name, value in query.items()}
    if "endpoint_override" in query and "force_virtual_addressing" not in query:
        options.pop("force_virtual_addressing", None)
    if "region" not in options:
        options["region"] = _region(bucket, options)
    # a small file takes one request where its opening may wait for its content
    defaults = {"connect_timeout": CONNECT_SECONDS, "request_timeout": LIMIT / 3, "allow_delayed_open": True}
    return _connected({**defaults, **options}), path


@functools.cache
def _retrying() -> Any:
    """Return the class of S3's file systems that this package opens, where pyarrow was built with them."""

    class RetryingS3(fs.S3FileSystem):  # type: ignore[misc]
        """Keeps how often it tries when it goes to another process; pyarrow's own forgets it."""

        def __reduce__(self) -> tuple[Any, ...]:
            _, arguments = super().__reduce__()
            return _connected, arguments

    return RetryingS3


def _connected(options: dict[str, Any]) -> fs.FileSystem:
    """Return S3's file system with these options; this process has one, whose connections are used again."""
    surroundings = tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_")))
    key = (os.getpid(), surroundings, repr(sorted(options.items())))
    with _lock:
        if key not in _systems:
            while len(_systems) >= KEPT:
                _systems.pop(next(iter(_systems)))
            retries = fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS)
            _systems[key] = _retrying()(retry_strategy=retries, **options)
        return _systems[key]


_lock = threading.Lock()
_systems: dict[tuple[int, tuple[tuple[str, str], ...], str], fs.FileSystem] = {}


def _plain(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value.lower(), value)


def _region(bucket: str, options: dict[str, Any]) -> str:
    """Return a bucket's region: of the environment, any where a server of one's own serves it, or as Amazon says."""
    known = next((os.environ[name] for name in _REGIONS if os.environ.get(name)), "")
    if known or has_own_endpoint(options):
        return known or _ANY_REGION
    return _named_by_amazon(bucket)


@functools.lru_cache(maxsize=256)
def _named_by_amazon(bucket: str) -> str:
    return str(fs.resolve_s3_region(bucket))


def _azure(uri: str, settings: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    _, password, host, query = _parts(uri)
    system, path = fs.FileSystem.from_uri(uri)
    options = azure_options(host, settings)
    if password:  # a file system of pyarrow's that was given a key in its URI loses it on its way to an executor
        options = {"account_key": password}
    if not options or "sig" in query or "client_secret" in query:
        return system, path
    return fs.AzureFileSystem(host.partition(".")[0], **options), path
