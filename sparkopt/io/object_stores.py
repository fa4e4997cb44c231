"""Object stores and HDFS opened by Arrow with Hadoop's settings: tasks reach what Spark's own readers reach.

A store is opened as ``resolve`` opens it (``stores``), but only where its settings mean the same to both. Others
(roles, keystores, encryption with own keys, another implementation of the file system) are refused with the reason,
and Spark reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from sparkopt.errors import ParameterError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief
from sparkopt.io.hadoop import ANONYMOUS, BY_CHAIN, BY_KEYS, names_of, providers_of
from sparkopt.io.stores import opened
from sparkopt.io.waiting import answered

__all__ = ["ObjectStores", "Setting"]

Setting: TypeAlias = Callable[[str], str | None]
"""Returns the value of a setting of Hadoop by its name; None where it has none."""

IMPLEMENTATIONS = {
    "s3a": ("org.apache.hadoop.fs.s3a.S3AFileSystem",),
    "s3": ("org.apache.hadoop.fs.s3a.S3AFileSystem",),
    "gs": ("com.google.cloud.hadoop.fs.gcs.GoogleHadoopFileSystem", "org.apache.hadoop.fs.gs.GoogleHadoopFileSystem"),
    "abfs": ("org.apache.hadoop.fs.azurebfs.AzureBlobFileSystem",),
    "abfss": ("org.apache.hadoop.fs.azurebfs.SecureAzureBlobFileSystem",),
}
"""Hadoop's classes that read what Arrow reads; a vendor's own may take its credentials from elsewhere."""

HDFS = ("hdfs", "viewfs")
LIBHDFS = ("ARROW_LIBHDFS_DIR", "HADOOP_HOME")
"""Where Arrow looks for Hadoop's library, which starts a JVM in each process: only where somebody has set it up."""

S3_REFUSED = (
    "security.credential.provider.path", "assumed.role.arn", "delegation.token.binding", "proxy.host",
    "accesspoint.arn", "encryption.algorithm", "server-side-encryption-algorithm",
    "custom.signers",
)  # fmt: skip
"""Settings of S3 that Arrow has no counterpart for. Objects encrypted by the server alone need no setting to read."""
BY_SERVER = ("AES256", "SSE-KMS", "DSSE-KMS")
"""Encryptions that a reader does not notice."""

GS_REFUSED = (
    "fs.gs.auth.service.account.json.keyfile", "google.cloud.auth.service.account.json.keyfile",
    "fs.gs.auth.service.account.keyfile", "google.cloud.auth.service.account.keyfile",
    "fs.gs.auth.access.token.provider", "fs.gs.auth.impersonation.service.account", "fs.gs.encryption.key",
    "fs.gs.proxy.address", "fs.gs.storage.root.url",
)  # fmt: skip
GS_DEFAULT = ("COMPUTE_ENGINE", "APPLICATION_DEFAULT")
AZURE_REFUSED = ("fs.azure.encryption.encoded.client-provided-key", "fs.azure.encryption.context.provider.type")
AZURE_HOST = ".dfs.core.windows.net"


class ObjectStores:
    """Opens the files of object stores, each store once.

    Parameters
    ----------
    setting : callable
        A session's settings of Hadoop.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._opened: dict[tuple[str, str], fs.FileSystem] = {}

    def location(self, uri: str) -> Location | None:
        """Return where a file is, with a file system that can be pickled; its credentials go with it.

        None for HDFS, to which each process has a connection of its own: ``resolve`` opens it there.

        Parameters
        ----------
        uri : str
            As Hadoop has it, quoted: ``s3a://bucket/a%20b``.

        Raises
        ------
        ParameterError
            Where Arrow cannot open the store as Hadoop does; the message says why, without secrets.
        """
        parts = urlsplit(uri)
        scheme = {"s3n": "s3a"}.get(parts.scheme, parts.scheme)
        if scheme in HDFS:
            self._require_libhdfs(scheme)
            return None
        if (scheme, parts.netloc) not in self._opened:
            try:
                self._opened[scheme, parts.netloc] = self._open(scheme, parts.netloc)
            except STORAGE_ERRORS as error:
                raise ParameterError(f"{scheme}: cannot be opened by Arrow: {brief(error)}") from None
        container = parts.netloc.partition("@")[0]
        return Location(self._opened[scheme, parts.netloc], f"{container}{unquote(parts.path)}", uri)

    def _open(self, scheme: str, authority: str) -> fs.FileSystem:
        known = IMPLEMENTATIONS.get(scheme)
        if known is None:
            raise ParameterError(f"{scheme}: is opened with Spark's credentials")
        own = self._setting(f"fs.{scheme}.impl")
        if own is not None and own not in known:
            raise ParameterError(f"{scheme}: is opened by {own}")
        if scheme in ("s3", "s3a"):
            return self._s3(authority)
        return self._gs(authority) if scheme == "gs" else self._azure(authority)

    def _require_libhdfs(self, scheme: str) -> None:
        if (kind := self._setting("hadoop.security.authentication") or "simple") != "simple":
            raise ParameterError(f"{scheme}: Arrow has no tickets of {kind}")
        if not (os.environ.get("CLASSPATH") and any(map(os.environ.get, LIBHDFS))):
            raise ParameterError(f"{scheme}: Arrow needs libhdfs: CLASSPATH, and {' or '.join(LIBHDFS)}, are not set")

    def _refuse(self, names: Sequence[str]) -> None:
        for name in names:
            if self._setting(name):
                raise ParameterError(f"the setting {name} is Spark's alone")

    def _s3(self, bucket: str) -> fs.FileSystem:
        def of(name: str) -> str | None:
            return self._setting(f"fs.s3a.bucket.{bucket}.{name}") or self._setting(f"fs.s3a.{name}")

        for name in S3_REFUSED:
            if (value := of(name)) and value not in BY_SERVER:
                raise ParameterError(f"the setting fs.s3a.{name} is Spark's alone")
        if self._setting("hadoop.security.credential.provider.path"):
            raise ParameterError("the setting hadoop.security.credential.provider.path is Spark's alone")
        if of("requester.pays.enabled") == "true":
            raise ParameterError("the setting fs.s3a.requester.pays.enabled is Spark's alone")
        for provider in providers_of(of("aws.credentials.provider") or ""):
            if provider not in (*BY_KEYS, *BY_CHAIN, ANONYMOUS):
                raise ParameterError(f"S3's credentials come from {provider}")
        return self._opened_by_arrow(f"s3://{bucket}/")

    def _gs(self, bucket: str) -> fs.FileSystem:
        self._refuse(GS_REFUSED)
        kind = self._setting("fs.gs.auth.type") or GS_DEFAULT[0]
        if kind not in (*GS_DEFAULT, "UNAUTHENTICATED"):
            raise ParameterError(f"the setting fs.gs.auth.type is {kind}")
        return self._opened_by_arrow(f"gs://{bucket}/")

    def _azure(self, authority: str) -> fs.FileSystem:
        self._refuse(AZURE_REFUSED)
        host = authority.partition("@")[2]
        if not host.endswith(AZURE_HOST):
            raise ParameterError(f"{host} is no address of Azure")

        def of(name: str) -> str | None:
            return self._setting(f"{name}.{host}") or self._setting(name)

        kind, key = of("fs.azure.account.auth.type") or "SharedKey", of("fs.azure.account.key")
        if kind != "SharedKey" or not key or of("fs.azure.account.keyprovider"):
            raise ParameterError(f"Azure's credentials are Spark's alone ({kind})")
        return self._opened_by_arrow(f"abfss://{authority}/")

    def _opened_by_arrow(self, uri: str) -> fs.FileSystem:
        settings = {name: value for name in names_of(uri) if (value := self._setting(name))}
        return answered(lambda: opened(uri, settings), uri)[0]
