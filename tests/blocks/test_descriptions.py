"""Spark's jobs are described, and what the caller had said of them is restored."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from py4j.protocol import Py4JNetworkError

from sparkopt.blocks.descriptions import described, of_subject

KEY = "spark.job.description"


class Context:
    """What Spark Classic's context does: properties of a thread."""

    def __init__(self, **properties):
        self.properties = properties

    def getLocalProperty(self, key):
        return self.properties.get(key)

    def setLocalProperty(self, key, value):
        self.properties[key] = value


class Connected:
    """What a session of Spark Connect does: tags of a thread, without commas."""

    __module__ = "pyspark.sql.connect.session"

    def __init__(self, *tags):
        self.tags = set(tags)

    def getTags(self):
        return self.tags

    def addTag(self, tag):
        assert "," not in tag
        self.tags.add(tag)

    def removeTag(self, tag):
        self.tags.discard(tag)


@pytest.mark.parametrize("own", [None, "nightly report"])
def test_a_description_is_the_jobs_and_then_the_callers(own):
    context = Context(**{KEY: own, "spark.jobGroup.id": "mine"})
    session = SimpleNamespace(sparkContext=context)
    with contextlib.suppress(ZeroDivisionError), of_subject("LogisticRegression"), described(session) as describe:
        for number in (1, 2):
            describe(f"pass {number}")
            assert context.properties[KEY] == f"sparkopt: pass {number} of LogisticRegression"
        with described(session, "reading rows"):
            assert context.properties[KEY] == "sparkopt: reading rows of LogisticRegression"
        assert context.properties[KEY] == "sparkopt: pass 2 of LogisticRegression"
        raise ZeroDivisionError
    assert context.properties == {KEY: own, "spark.jobGroup.id": "mine"}
    with described(session, "reading rows"):
        assert context.properties[KEY] == "sparkopt: reading rows"


def test_on_connect_there_is_one_more_tag():
    session = Connected("mine", "sparkopt: pass 2")
    with described(session) as describe:
        describe("pass 1")
        assert session.tags == {"mine", "sparkopt: pass 2", "sparkopt: pass 1"}
        describe("pass 2")  # which the caller has added
        assert session.tags == {"mine", "sparkopt: pass 2"}
    assert session.tags == {"mine", "sparkopt: pass 2"}
    with of_subject("3 models, of a kind"), described(session, "pass 1"):
        assert "sparkopt: pass 1 of 3 models; of a kind" in session.tags
    assert session.tags == {"mine", "sparkopt: pass 2"}


def test_without_spark_and_after_the_jvm_nothing_is_in_the_way(monkeypatch):
    with described(None, "pass 1") as describe:
        describe("pass 2")
    context = Context()
    with described(SimpleNamespace(sparkContext=context), "pass 1"):
        monkeypatch.setattr(context, "setLocalProperty", lambda *a: (_ for _ in ()).throw(Py4JNetworkError("gone")))


def test_sparks_pages_show_what_jobs_are_of(spark):
    from sparkopt.ml import LinearRegression

    context = spark.sparkContext
    context.setJobDescription("nightly report")
    context.setLocalProperty("spark.jobGroup.id", "test-descriptions")
    df = spark.range(60).selectExpr("array(id, id % 3) AS features", "2 * id AS label")
    try:
        for engine in ("driver", "resident", "local"):
            LinearRegression(maxIter=2, tol=0.0, engine=engine, optimizer="gd").fit(df)
        assert context.getLocalProperty(KEY) == "nightly report"
        store = context._jsc.sc().statusStore()
        jobs = [store.job(number) for number in context.statusTracker().getJobIdsForGroup("test-descriptions")]
        shown = {job.description().get() for job in jobs if job.description().isDefined()}
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
        context.setLocalProperty(KEY, None)
    expected = ["reading rows", "pass 1", "pass 2", "resident tasks", "all passes in one task"]
    assert {f"sparkopt: {what} of LinearRegression" for what in expected} <= shown, shown
