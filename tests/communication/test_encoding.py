"""Sums that travel encoded: they add up, nothing that is left out is lost, and retries change nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_svmlight_file

from sparkopt import codecs, losses, optim, penalties
from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.codecs.gradient import GRADIENT_CODECS, ErrorFeedback, gradient_codec
from sparkopt.communication.encoder import Encoder, PassMessage
from sparkopt.communication.encoding import CommunicatedSum, EncodedGradient
from sparkopt.communication.error_feedback import Residuals, ResidualStore, check_residuals, names_at
from sparkopt.communication.sums import Summation
from sparkopt.errors import CorruptDataError
from sparkopt.io.filesystem import resolve
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop

LOSSY = [name for name in GRADIENT_CODECS if name != "none"]
PARTS = 4


def data(outputs: int = 1) -> tuple[LinearObjective, list[InMemoryBlocks]]:
    """Rows of a logistic or multinomial problem, cut into partitions."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(600, 20))
    raw = X @ rng.normal(size=(20, outputs)) + rng.gumbel(size=(600, outputs))
    y = raw.argmax(axis=1).astype(float) if outputs > 1 else (raw[:, 0] > 0.5).astype(float)
    loss = losses.Multinomial(outputs) if outputs > 1 else losses.Logistic()
    cuts = np.array_split(np.arange(600), PARTS)
    return LinearObjective(loss, 20), [InMemoryBlocks([Block(X[rows], y[rows])]) for rows in cuts]


def on_disk(parts: list[InMemoryBlocks], folder: Path) -> list[InMemoryBlocks]:
    """The same blocks, with a path next to which residuals are stored."""
    return [replace(one, path=f"{folder}/part-{index}.arrow") for index, one in enumerate(parts)]


def summed(summation: Summation, query: Query, parts: list[InMemoryBlocks]) -> PartialSum:
    sums = [summation(PassMessage(query), Part(index, 150 * index), one).sums for index, one in enumerate(parts)]
    return sum(sums[1:], sums[0]).decoded()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", LOSSY)
def test_what_is_left_out_is_sent_later(tmp_path, name, outputs):
    """Over all steps, what arrived is what was sent, but for the residual of the last step (Karimireddy, eq. 2)."""
    objective, parts = data(outputs)
    parts = on_disk(parts, tmp_path)
    plain = Summation(FullGradient(objective))
    encoded = Summation(plain.work, Encoder(gradient_codec(name), "fit"))
    rng = np.random.default_rng(0)
    arrived = sent = np.zeros((1, objective.size))
    for step in range(6):
        query = Query(optim.Gradients(0.1 * rng.normal(size=(1, objective.size))), step)
        arrived = arrived + summed(encoded, query, parts).gradient
        sent = sent + summed(plain, query, parts).gradient
    left = sum(Residuals("fit", f"part-{index}", one.path).before(6)["0"]["error"] for index, one in enumerate(parts))
    np.testing.assert_allclose(arrived[0] + left, sent[0], rtol=1e-9, atol=1e-9)
    assert np.abs(arrived - sent).max() > 0  # it is lossy


@pytest.mark.parametrize("name", LOSSY)
def test_a_repeated_task_sends_the_same(tmp_path, name):
    objective, parts = data()
    parts = on_disk(parts, tmp_path)
    summation = Summation(FullGradient(objective), Encoder(gradient_codec(name), "fit"))
    for step in range(3):
        message = PassMessage(Query(optim.Gradients(np.full((1, objective.size), 0.1 * step)), step))
        first, again = (summation(message, Part(1, 150), parts[1]).sums for _ in range(2))
        assert first.gradient.slices == again.gradient.slices
        assert len(list(tmp_path.iterdir())) <= 2  # of this step and the one before


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("name", GRADIENT_CODECS)
def test_communicated_sums_are_a_monoid(name, slices):
    codec, rng = gradient_codec(name), np.random.default_rng(3)
    vectors = rng.normal(size=(5, 1, 31))
    pieces = [np.array_split(vector, slices, axis=1) for vector in vectors]
    encoded = [
        EncodedGradient(
            codec,
            (1, 31),
            tuple((codec.encode(piece[0], codec.init(piece.size), rng)[0],) for piece in cut),
        )
        for cut in pieces
    ]
    sums = [CommunicatedSum.of(PartialSum.zero(1, 31), one) for one in encoded]
    total = sum(sums[1:], sums[0])
    apart = sum(one.decoded() for one in encoded)
    np.testing.assert_allclose(total.decoded().gradient, apart, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(CommunicatedSum.joined(total.cut(1)).decoded().gradient, apart, rtol=1e-12)
    zero = CommunicatedSum.of(PartialSum.zero(1, 31))
    whole = zero + total + zero
    np.testing.assert_array_equal(whole.decoded().gradient, total.decoded().gradient)
    assert isinstance(whole.gradient, EncodedGradient)
    dense = CommunicatedSum.of(replace(PartialSum.zero(1, 31), gradient=np.ones((1, 31))))
    for mixed in (total + dense, dense + total):
        np.testing.assert_allclose(mixed.decoded().gradient, apart + 1, rtol=1e-12)
    smaller = whole.compacted()
    tolerance = {"fp16": 2e-3, "bf16": 2e-2}.get(name, 1e-6) * np.abs(apart).max()  # added while encoded
    np.testing.assert_allclose(smaller.decoded().gradient, apart, atol=tolerance)
    assert smaller.sent_bytes <= min(whole.sent_bytes, smaller.raw_bytes)


@pytest.mark.parametrize("name", GRADIENT_CODECS)
def test_a_truncated_payload_is_one_clear_error(name):
    codec, vector = gradient_codec(name), np.linspace(-1, 1, 40)
    payload, _ = codec.encode(vector, codec.init(40), np.random.default_rng(0))
    whole = EncodedGradient(codec, (2, 20), ((payload,),))
    assert whole.decoded().shape == (2, 20)
    for length in range(1, len(payload)):  # an empty one stands for no rows
        with pytest.raises(CorruptDataError, match=f"gradient codec '{name}'"):
            whole.of([payload[:length]]).decoded()


CASES = {"logistic": 1, "multinomial": 3}
CODECS = {name: gradient_codec(name) for name in LOSSY} | {
    "top-k": ErrorFeedback(codecs.TopK(0.1)),  # a hundredth of 21 entries would be none
    "random-k": ErrorFeedback(codecs.RandomK(0.5)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LOSSY)
def test_the_uncompressed_optimum_is_reached(name, case):
    assert _gap(CODECS[name], CASES[case]) < 1e-3


@pytest.mark.parametrize("codec", [codecs.TopK(0.05), codecs.Sign()])
def test_biased_codecs_need_their_residual(codec):
    assert _gap(codec, 1) > 1e-2 > 1e-3 > _gap(ErrorFeedback(codec), 1)


@pytest.fixture(scope="module")
def a9a(shared_data):
    """Real sparse rows, centred and scaled to equal spread."""
    X, y = load_svmlight_file(str(shared_data / "a9a" / "a9a.gz"), n_features=123)
    X = sparse.csr_array(X)
    mean = X.mean(axis=0)
    spread = np.sqrt(X.power(2).mean(axis=0) - mean * mean)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    cuts = np.array_split(np.arange(len(y)), PARTS)
    blocks = [InMemoryBlocks([Block(X[rows], (y[rows] > 0).astype(float))]) for rows in cuts]
    return LinearObjective(losses.Logistic(), 123, scale=scale, center=mean), blocks


@pytest.mark.parametrize("name", LOSSY)
def test_the_uncompressed_optimum_is_reached_on_real_rows(a9a, name):
    assert _gap(CODECS[name], 1, a9a, steps=400, rate=0.5) < 1e-3


@pytest.mark.parametrize("codec", [codecs.TopK(0.05), codecs.Sign()])
def test_biased_codecs_need_their_residual_on_real_rows(a9a, codec):
    assert _gap(codec, 1, a9a, steps=400, rate=0.5) > 1e-3


def _gap(codec: codecs.GradientCodec, outputs: int, rows=None, steps: int = 300, rate: float = 1.0) -> float:
    """How far above the optimum compressed gradient descent ends, relative to it."""
    objective, parts = rows or data(outputs)
    uncompressed = Summation(FullGradient(objective))
    encoded = Summation(uncompressed.work, Encoder(codec, f"fit {codec} {outputs}"))
    penalty, stop = penalties.L2(0.05).at(objective.coordinates()), Stop(steps, 0.0)
    start = np.zeros(objective.size)
    plain = Problem(optim.lbfgs(), start, penalty, Stop(100, 1e-12))
    best = minimise(lambda query: summed(uncompressed, query, parts), plain)
    step = optim.by_name("sgd", optim.schedules.InverseTime(rate, 0.01))
    found = minimise(lambda query: summed(encoded, query, parts), Problem(step, start, penalty, stop))
    exact = minimise(
        lambda query: summed(uncompressed, query, parts),
        Problem(step, found.coef, penalty, Stop(0)),  # a compressed objective is exact too, but let another say so
    )
    assert exact.objective == pytest.approx(found.objective, rel=1e-12)
    return (found.objective - best.objective) / best.objective


def test_other_passes_are_not_encoded():
    objective, parts = data()
    summation = Summation(FullGradient(objective), Encoder(gradient_codec("top-k"), "fit"))
    coefs = np.full((1, objective.size), 0.1)
    for request in (
        optim.HessianProducts(coefs, coefs),
        optim.Gradients(coefs, rows=optim.EveryRow()),
        optim.Gradients(coefs, rows=optim.SampledRows(10)),
    ):
        query = Query(request, 1)
        expected = FullGradient(objective)(query, Part(0, 0), parts[0])
        sent = summation(PassMessage(query), Part(0, 0), parts[0]).sums
        np.testing.assert_array_equal(sent.gradient, expected.gradient)


TREE = {"error": np.arange(3.0), "codec": {"inner": {}, "step": np.asarray(7)}}


@pytest.mark.parametrize("kept", ["disk", "process"])
def test_residuals_are_read_as_they_were_written(tmp_path, kept):
    residuals = Residuals("a", "part-0", f"{tmp_path}/x.arrow" if kept == "disk" else None)
    assert residuals.before(0) is None
    residuals.keep(0, TREE)
    found = residuals.before(1)
    assert found["codec"]["inner"] == {}
    assert found["codec"]["step"] == 7
    np.testing.assert_array_equal(found["error"], TREE["error"])
    residuals.keep(1, {"error": np.zeros(3)})
    np.testing.assert_array_equal(residuals.before(1)["error"], TREE["error"])  # a task that is run again
    assert residuals.before(0) is None
    assert not list(tmp_path.iterdir())  # what an earlier fit has left is gone


def test_a_store_of_residuals_outlives_the_executor(tmp_path, caplog):
    store = ResidualStore(f"file://{tmp_path}/store", interval=2)
    first = Residuals("a", "part-0", f"{tmp_path}/x.arrow", store)
    for step in range(5):
        first.keep(step, {"error": np.full(2, float(step))})
    elsewhere = Residuals("b", "part-0", f"{tmp_path}/y.arrow", store)
    np.testing.assert_array_equal(elsewhere.before(5)["error"], [4.0, 4.0])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert elsewhere.before(4) is None  # 3 was not kept
    assert "residual of part-0 is lost at step 4" in caplog.text
    assert len(list((tmp_path / "store").iterdir())) == 2


DAMAGES = {
    "truncated": lambda content: content[:-1],
    "altered": lambda content: content[:90] + bytes([content[90] ^ 1]) + content[91:],
    "empty": lambda content: b"",
    "renamed format": lambda content: b"x" + content,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_residual_is_lost_and_not_believed(tmp_path, damage, caplog):
    store = ResidualStore(str(tmp_path / "store"), interval=2)
    residuals = Residuals("a", "part-0", f"{tmp_path}/x.arrow", store)
    for step in range(5):
        residuals.keep(step, {"error": np.full(2, float(step))})
    kept = resolve(store.uri, "checkpointDir")
    check_residuals(kept, 4)
    for folder in (tmp_path, tmp_path / "store"):
        (path,) = folder.glob("*.00000004.memory")
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert residuals.before(5) is None
        assert Residuals("b", "part-0", f"{tmp_path}/y.arrow", store).before(5) is None
    assert len(caplog.records) == 2
    assert "altered" in caplog.text or "not of the format" in caplog.text
    with pytest.raises(CorruptDataError, match=r"residual .*part-0\.00000004"):
        check_residuals(kept, 4)
    check_residuals(kept, 2)  # that of the checkpoint before


def test_a_missing_residual_is_noticed(tmp_path):
    store = ResidualStore(str(tmp_path), interval=1)
    kept = resolve(store.uri, "checkpointDir")
    check_residuals(kept, 7)  # where there are none, no codec left anything out
    for step in (1, 2):
        for name in ("part-0", "part-1"):
            Residuals("a", name, None, store).keep(step, {"error": np.zeros(2)})
    (tmp_path / "part-1.00000002.memory").unlink()
    with pytest.raises(CorruptDataError, match="part-1 at step 2 is missing"):
        check_residuals(kept, 2)
    check_residuals(kept, 1)
    assert (names_at(kept, 1), names_at(kept, 2), names_at(kept, 3)) == (["part-0", "part-1"], ["part-0"], [])
    (tmp_path / "part-0.00000002.memory").unlink()
    check_residuals(kept, 2)  # of a checkpoint that names none
    with pytest.raises(CorruptDataError, match="part-0 at step 2 is missing"):
        check_residuals(kept, 2, ["part-0", "part-1"])
