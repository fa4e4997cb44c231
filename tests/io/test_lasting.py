"""Credentials that a session renews, and what file systems keep when they go to another process."""

from __future__ import annotations

import pickle

import pytest

from sparkopt.checkpoint import Checkpointer
from sparkopt.communication import ResidualStore
from sparkopt.io import filesystem, hadoop
from sparkopt.io.filesystem import LastingLocation, resolve

URI = "s3a://models/churn"
KEYS = {"fs.s3a.access.key": "name", "fs.s3a.secret.key": "hidden", "fs.s3a.endpoint": "http://127.0.0.1:1"}


@pytest.fixture
def settings(monkeypatch):
    """What the session has, as a test changes it."""
    settings = {**KEYS, "fs.s3a.session.token": "first"}

    def lookup(names):
        below = tuple(name for name in names if name.endswith("."))
        return {name: value for name, value in settings.items() if name in names or name.startswith(below)}

    monkeypatch.setattr(hadoop, "_sources", [lookup])
    monkeypatch.setattr(hadoop, "_carried", {})
    monkeypatch.setattr(filesystem, "RENEWED_AFTER", 0.0)
    return settings


def token(location):
    _, (options,) = location.filesystem.__reduce__()
    return options["session_token"]


MEMBERS = {
    "a location": lambda: LastingLocation(URI, "checkpointDir"),
    "checkpoints": lambda: Checkpointer(URI),
    "residuals": lambda: ResidualStore(URI, 10),
}


def folder(member):
    if isinstance(member, LastingLocation):
        return member.now()
    return member.location() if isinstance(member, Checkpointer) else member.location


@pytest.mark.parametrize("name", MEMBERS)
def test_renewed_credentials_are_used_from_then_on(name, settings):
    member = MEMBERS[name]()
    assert token(folder(member)) == "first"
    settings["fs.s3a.session.token"] = "second"
    assert token(folder(member)) == "second"
    settings["fs.s3a.session.token"] = "third"
    content = pickle.dumps(member)
    settings.clear()  # a process without a session
    travelled = pickle.loads(content)
    assert token(folder(travelled)) == "third"
    assert folder(travelled).path == "models/churn"


def test_the_session_is_not_asked_each_time(settings, monkeypatch):
    monkeypatch.setattr(filesystem, "RENEWED_AFTER", 60.0)
    member = LastingLocation(URI, "checkpointDir")
    settings["fs.s3a.session.token"] = "second"
    assert token(member.now()) == "first"


def test_connections_are_shared_in_a_process(settings):
    assert resolve(URI, "path").filesystem is resolve("s3a://models/another", "path").filesystem
    first = resolve(URI, "path").filesystem
    settings["fs.s3a.access.key"] = "another"
    assert resolve(URI, "path").filesystem is not first


class Opens(hadoop.CarriesSettings):
    """A task whose rows name paths."""

    def __init__(self, rows):
        self.rows = rows

    @property
    def _opens_paths(self):
        return bool(self.rows)


def test_tasks_whose_rows_name_paths_get_the_settings_of_every_store(settings):
    settings |= {
        "fs.s3a.bucket.b.c.access.key": "of a bucket",
        "fs.s3a.bucket.b.unknown": "of no use",
        "fs.azure.account.key.a.dfs.core.windows.net": "of an account",
    }
    given = {name: value for name, value in settings.items() if "unknown" not in name}
    contents = [pickle.dumps(Opens(rows)) for rows in ([], [1])]
    settings.clear()
    found = []
    for content in contents:
        assert isinstance(pickle.loads(content), Opens)
        found.append(dict(hadoop._carried))
    assert found == [{}, given]
