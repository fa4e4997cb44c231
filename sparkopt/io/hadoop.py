"""Settings of Hadoop's file systems as pyarrow's have them: endpoints, keys, regions, path style.

Users set them once, for Spark (``spark.hadoop.fs.s3a.endpoint=…``, ``core-site.xml``), and expect that checkpoints
and models go there too. ``sparkopt.blocks`` says how the settings of the running session are found (`provide`); a
process that has no session is given those of its driver (`carry`). Without either, pyarrow's own defaults hold:
environment variables, configuration files and the machine's role.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from sparkopt.errors import ParameterError

__all__ = [
    "ANONYMOUS",
    "BY_CHAIN",
    "BY_KEYS",
    "CarriesSettings",
    "Lookup",
    "azure_options",
    "carry",
    "gcs_uri",
    "has_own_endpoint",
    "names_of",
    "provide",
    "providers_of",
    "s3_options",
    "session_settings_of",
    "settings_of",
]

Lookup = Callable[[Sequence[str]], Mapping[str, str]]
"""Returns the values of settings that are set, by name; a name that ends with a dot means all that begin with it."""

_S3 = (
    "access.key",
    "secret.key",
    "session.token",
    "endpoint",
    "endpoint.region",
    "path.style.access",
    "connection.ssl.enabled",
    "aws.credentials.provider",
    "assumed.role.arn",
    "assumed.role.session.name",
    "assumed.role.external.id",
    "proxy.host",
    "proxy.port",
    "proxy.username",
    "proxy.password",
)
_GCS = ("fs.gs.storage.root.url", "fs.gs.project.id", "fs.gs.auth.type")
_AZURE = (
    "fs.azure.account.key",
    "fs.azure.sas.fixed.token",
    "fs.azure.account.oauth2.client.id",
    "fs.azure.account.oauth2.client.secret",
    "fs.azure.account.oauth2.client.endpoint",
)

BY_KEYS = ("TemporaryAWSCredentialsProvider", "SimpleAWSCredentialsProvider")
"""Providers of S3's credentials that take the keys among the settings."""
BY_CHAIN = (
    "EnvironmentVariableCredentialsProvider", "IAMInstanceCredentialsProvider", "InstanceProfileCredentialsProvider",
    "ContainerCredentialsProvider", "EC2ContainerCredentialsProviderWrapper", "ProfileCredentialsProvider",
    "WebIdentityTokenFileCredentialsProvider", "WebIdentityTokenCredentialsProvider", "DefaultCredentialsProvider",
    "DefaultAWSCredentialsProviderChain",
)  # fmt: skip
"""Those that Arrow asks too where it is given no keys."""
ANONYMOUS = "AnonymousAWSCredentialsProvider"

_CENTRAL = "s3.amazonaws.com"
"""Amazon's address for all regions, which is none of a store of one's own."""
_REGIONAL = re.compile(r"\bs3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.")

_sources: list[Lookup] = []
_carried: dict[str, str] = {}


def provide(lookup: Lookup) -> None:
    """Say how the settings of the running session are found."""
    if lookup not in _sources:
        _sources.append(lookup)


def carry(settings: Mapping[str, str]) -> None:
    """Use these settings in this process, which has no session: those that ``settings_of`` found in another."""
    _carried.update(settings)


def settings_of(*uris: str | None) -> dict[str, str]:
    """Return the settings that concern some URIs; for paths of this machine none.

    Credentials are among them: never log what this returns.

    Examples
    --------
    >>> settings_of("/data/models", None)
    {}
    """
    names = [name for uri in uris if uri for name in names_of(uri)]
    return {name: _carried[name] for name in names if name in _carried} | _of_session(names)


def session_settings_of(uri: str) -> dict[str, str]:
    """Return what ``settings_of`` finds in the running session; nothing in a process that has none."""
    return _of_session(names_of(uri))


def _of_session(names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for lookup in _sources if names else ():
        found |= {name: value for name, value in lookup(names).items() if value}
    return found


def _of_every_store() -> dict[str, str]:
    """Return the settings that concern any URI, whichever bucket or account it names."""
    below = [_BUCKETS, *(f"{name}." for name in _AZURE)]
    found = _of_session([*(f"fs.s3a.{name}" for name in _S3), *_GCS, *_AZURE, *below])
    # a bucket's name may hold dots, so the setting is looked for at the end
    known = tuple(f".{name}" for name in _S3)
    return _carried | {
        name: value for name, value in found.items() if not name.startswith(_BUCKETS) or name.endswith(known)
    }


class CarriesSettings:
    """Gives what is pickled for a task the session's settings of all stores, for paths that only its rows name.

    A subclass says with ``_opens_paths`` whether its rows hold any. Credentials are among the settings, as in
    whatever Spark's own tasks are sent: pickles of such objects are for tasks, not for files.
    """

    @property
    def _opens_paths(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        settings = {_SETTINGS: found} if self._opens_paths and (found := _of_every_store()) else {}
        return {**vars(self), **settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        carry(state.pop(_SETTINGS, {}))
        vars(self).update(state)


_BUCKETS, _SETTINGS = "fs.s3a.bucket.", "settings of stores"


def names_of(uri: str) -> list[str]:
    """Return the names of the settings that concern a URI."""
    scheme, _, rest = uri.partition("://")
    authority = rest.partition("/")[0]
    if scheme.lower() in ("s3", "s3a", "s3n"):
        bucket = authority.rpartition("@")[2].partition("?")[0]
        return [f"fs.s3a.{name}" for name in _S3] + [f"fs.s3a.bucket.{bucket}.{name}" for name in _S3]
    if scheme.lower() == "gs":
        return list(_GCS)
    if scheme.lower() in ("abfs", "abfss"):
        account = authority.rpartition("@")[2].partition("?")[0]
        return [*_AZURE, *(f"{name}.{account}" for name in _AZURE)]
    return []


def s3_options(bucket: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of pyarrow's ``S3FileSystem`` that settings give for a bucket.

    Examples
    --------
    >>> s3_options("rows", {"fs.s3a.endpoint": "http://minio:9000", "fs.s3a.path.style.access": "true"})
    {'endpoint_override': 'minio:9000', 'scheme': 'http', 'force_virtual_addressing': False}
    """

    def given(name: str) -> str:
        return settings.get(f"fs.s3a.bucket.{bucket}.{name}") or settings.get(f"fs.s3a.{name}") or ""

    options = _s3_credentials(given) | _s3_address(given)
    if given("proxy.host"):
        options["proxy_options"] = _s3_proxy(given)
    return options


def providers_of(listed: str) -> list[str]:
    """Return the classes, without their packages, that a setting lists as providers of S3's credentials."""
    return [name.strip().rpartition(".")[2] for name in listed.split(",") if name.strip()]


def _s3_credentials(given: Callable[[str], str]) -> dict[str, Any]:
    """Return the credentials that settings give; none where Arrow finds them itself, as Hadoop does."""
    providers = providers_of(given("aws.credentials.provider"))
    takes_keys = not providers or not set(providers) <= {*BY_CHAIN, ANONYMOUS}
    if takes_keys and given("access.key") and given("secret.key"):
        token = {"session_token": given("session.token")} if given("session.token") else {}
        return {"access_key": given("access.key"), "secret_key": given("secret.key"), **token}
    if ANONYMOUS in providers and not set(providers) & set(BY_CHAIN):
        return {"anonymous": True}
    if any("AssumedRole" in name for name in providers) and given("assumed.role.arn"):
        names = {"arn": "role_arn", "session.name": "session_name", "external.id": "external_id"}
        return {ours: given(f"assumed.role.{name}") for name, ours in names.items() if given(f"assumed.role.{name}")}
    return {}


def _s3_address(given: Callable[[str], str]) -> dict[str, Any]:
    """Return where the store is: its region, and its endpoint unless that is Amazon's for all regions."""
    scheme, mark, host = given("endpoint").rstrip("/").rpartition("://")
    found = _REGIONAL.search(host)
    region = given("endpoint.region") or (found[1] if found else "")
    options: dict[str, Any] = {"region": region} if region else {}
    if host and host != _CENTRAL:
        by_path = given("path.style.access").lower() == "true" or not _has_subdomains(host)
        options["endpoint_override"] = host
        options["scheme"] = scheme if mark else "https" if _is_secure(given) else "http"
        options["force_virtual_addressing"] = not by_path
    return options


def _is_secure(given: Callable[[str], str]) -> bool:
    return given("connection.ssl.enabled").lower() != "false"


def _s3_proxy(given: Callable[[str], str]) -> dict[str, Any]:
    """Return the proxy, whose port is by default that of the connection's protocol, as Hadoop has it."""
    port = given("proxy.port") or ("443" if _is_secure(given) else "80")
    if not port.isdigit():
        raise ParameterError(f"fs.s3a.proxy.port={port!r} is not a port: set a whole number.")
    login = {name: given(f"proxy.{name}") for name in ("username", "password") if given(f"proxy.{name}")}
    return {"scheme": "http", "host": given("proxy.host"), "port": int(port), **login}


def has_own_endpoint(options: Mapping[str, Any]) -> bool:
    """Whether these options of S3 lead elsewhere than to Amazon, where a bucket's region could be asked for."""
    return bool(options.get("endpoint_override") or any(os.environ.get(name) for name in _ENDPOINTS))


_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def _has_subdomains(endpoint: str) -> bool:
    """Whether a bucket's name can be put before a host's: not before an address, nor a name without a domain."""
    host = endpoint.rpartition(":")[0] or endpoint
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "." in host
    return False


def gcs_uri(uri: str, settings: Mapping[str, str], seconds: float) -> str:
    """Return a URI of Google's store with the settings that it does not have itself, and how long it is tried."""
    wanted = {"retry_limit_seconds": f"{seconds:g}", "project_id": settings.get("fs.gs.project.id", "")}
    if root := settings.get("fs.gs.storage.root.url", "").rstrip("/"):
        scheme, _, host = root.rpartition("://")
        wanted |= {"scheme": scheme or "https", "endpoint_override": host}
    if settings.get("fs.gs.auth.type") == "UNAUTHENTICATED" and "@" not in uri:
        uri = uri.replace("://", "://anonymous@", 1)
    return _with_query(uri, wanted)


def azure_options(account: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of pyarrow's ``AzureFileSystem`` that settings give for an account, by its host.

    Examples
    --------
    >>> azure_options("a.dfs.core.windows.net", {"fs.azure.account.key.a.dfs.core.windows.net": "abc="})
    {'account_key': 'abc='}
    """

    def given(name: str) -> str:
        return settings.get(f"fs.azure.{name}.{account}") or settings.get(f"fs.azure.{name}") or ""

    if given("account.key"):
        return {"account_key": given("account.key")}
    if given("sas.fixed.token"):
        return {"sas_token": given("sas.fixed.token")}
    if given("account.oauth2.client.secret"):
        _, _, *tenant = given("account.oauth2.client.endpoint").split("/")
        return {
            "client_id": given("account.oauth2.client.id"),
            "client_secret": given("account.oauth2.client.secret"),
            "tenant_id": tenant[1] if len(tenant) > 1 else "",
        }
    return {}


def _with_query(uri: str, wanted: Mapping[str, str]) -> str:
    """Return a URI with the parameters that have a value and that it does not have yet."""
    before, _, query = uri.partition("?")
    known = {unquote(pair.partition("=")[0]) for pair in query.split("&")}
    more = [f"{name}={quote(value, safe='')}" for name, value in wanted.items() if value and name not in known]
    parts = "&".join([*([query] if query else []), *more])
    return f"{before}?{parts}" if parts else uri
