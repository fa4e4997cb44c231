"""One contract for all gradient codecs, and what the literature promises of each."""

import functools
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparkopt.codecs import (
    GRADIENT_CODECS,
    QSGD,
    BFloat16,
    ErrorFeedback,
    Float16,
    Int8,
    NoCompression,
    PowerSGD,
    RandomK,
    Sign,
    TopK,
    gradient_codec,
)
from sparkopt.codecs.gradient import Sparse
from sparkopt.errors import CorruptDataError, DivergedError, IncompatibleError, ParameterError

PLAIN = [
    NoCompression(),
    Float16(),
    BFloat16(),
    Int8(),
    QSGD(),
    QSGD(levels=1, bucket=16),
    QSGD(levels=127, bucket=7),
    Sign(),
    TopK(),
    TopK(fraction=0.3),
    RandomK(),
    RandomK(fraction=0.3, seed=7),
    PowerSGD(),
    PowerSGD(rank=1),
]
ALL = PLAIN + [ErrorFeedback(codec) for codec in PLAIN]
SUMMABLE = [codec for codec in ALL if codec.summable]

every_codec = pytest.mark.parametrize("codec", ALL, ids=repr)
quick = settings(max_examples=25, deadline=None)
vectors = arrays(
    np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 3))
)


def encode(codec, x, seed=0):
    return codec.encode(x, codec.init(len(x)), np.random.default_rng(seed))


def leaves(state):
    for value in state.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


def test_the_registry_holds_all_promised_codecs():
    promised = {"none", "fp16", "bf16", "int8", "qsgd", "sign", "top-k", "random-k", "powersgd"}
    assert set(GRADIENT_CODECS) == promised
    for name in promised:
        assert gradient_codec(name).name == name
        assert isinstance(gradient_codec(name), ErrorFeedback) is (name != "none")
    assert gradient_codec(Sign()) == Sign()
    with pytest.raises(ParameterError, match="compression must be one of 'none', 'fp16'"):
        gradient_codec("gzip")


@every_codec
@quick
@given(x=vectors)
def test_contract(codec, x):
    before = x.copy()
    state = codec.init(x.size)
    payload, after = codec.encode(x, state, np.random.default_rng(3))
    decoded = codec.decode(payload)
    assert isinstance(payload, bytes)
    assert decoded.shape == x.shape
    assert decoded.dtype == np.float64
    assert np.isfinite(decoded).all()
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves(after))
    # pure: neither the vector nor the state changed, so encoding once more gives the same bytes
    np.testing.assert_array_equal(x, before)
    assert codec.encode(x, state, np.random.default_rng(3))[0] == payload
    if codec.lossless:
        np.testing.assert_array_equal(decoded, x)


@every_codec
@pytest.mark.parametrize("size", [1, 2, 8, 9, 129])
def test_zero_stays_zero_and_does_not_stick(codec, size):
    rng, state = np.random.default_rng(0), codec.init(size)
    payload, state = codec.encode(np.zeros(size), state, rng)
    np.testing.assert_allclose(codec.decode(payload), 0.0, atol=1e-40)
    total = np.zeros(size)
    for _ in range(200):
        payload, state = codec.encode(np.ones(size), state, rng)
        total += codec.decode(payload)
    assert total.sum() > 0


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e31])
def test_what_cannot_be_encoded_is_refused(codec, bad):
    if codec.lossless and bad == 1e31:
        assert codec.decode(encode(codec, [bad])[0]) == bad
        return
    with pytest.raises(DivergedError, match=f"{codec.name}.*at entry 1"):
        encode(codec, np.array([0.0, bad, 1.0]))


@every_codec
@pytest.mark.parametrize("x", [np.zeros(0), np.zeros((2, 2))])
def test_wrong_shapes_are_refused(codec, x):
    with pytest.raises(ParameterError, match="x must be a vector"):
        codec.encode(x, codec.init(1), np.random.default_rng(0))


@pytest.mark.parametrize("codec", SUMMABLE, ids=repr)
@quick
@given(x=vectors, seed=st.integers(0, 99))
def test_payloads_of_summable_codecs_can_be_added(codec, x, seed):
    y = np.random.default_rng(seed).standard_normal(x.size)
    workers = [codec.agree(codec.init(x.size), max(codec.propose(v, codec.init(x.size)) for v in (x, y)))] * 2
    a, b = (codec.encode(v, m, np.random.default_rng(0))[0] for v, m in zip((x, y), workers, strict=True))
    expected = codec.decode(a) + codec.decode(b)
    rounding = {"none": 1e-15, "int8": 1e-15, "fp16": 2**-10, "bf16": 2**-8, "random-k": 2**-22}[codec.name]
    scale = max(np.abs(codec.decode(a)).max(), np.abs(codec.decode(b)).max())
    np.testing.assert_allclose(codec.decode(codec.add(a, b)), expected, rtol=0, atol=2 * rounding * scale)


@pytest.mark.parametrize("codec", [codec for codec in ALL if not codec.summable], ids=repr)
def test_the_others_say_that_they_cannot(codec):
    payload, _ = encode(codec, np.ones(9))
    with pytest.raises(IncompatibleError, match=f"{codec.name}.*cannot be added"):
        codec.add(payload, payload)


@pytest.mark.parametrize("codec", SUMMABLE, ids=repr)
def test_vectors_of_different_sizes_cannot_be_added(codec):
    with pytest.raises(IncompatibleError, match=codec.name):
        codec.add(encode(codec, np.ones(9))[0], encode(codec, np.ones(10))[0])


CLAIMS = {
    "sparse": (Sparse(), struct.pack("<QQI", 2**40, 0, zlib.crc32(struct.pack("<QQ", 2**40, 0)))),
    "top-k": (TopK(1e-9), struct.pack("<I", 2**31) + bytes(8 * 3)),
    "random-k": (RandomK(1e-9), struct.pack("<IQQ", 2**31, 0, 0) + bytes(4 * 3)),
    "powersgd": (PowerSGD(rank=1), struct.pack("<I", 2**26) + bytes(4 * 2 * 2**13)),
    "with error feedback": (ErrorFeedback(TopK(1e-9)), struct.pack("<I", 2**31) + bytes(8 * 3)),
}
"""Payloads of few bytes that claim to hold up to 8 TiB, and are well-formed."""


@pytest.mark.parametrize("name", CLAIMS)
def test_a_payload_of_another_size_is_refused_before_it_is_decoded(name):
    codec, payload = CLAIMS[name]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptDataError, match="entries instead of 3"):
            codec.add_to(np.zeros(3), payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


BYTE_RATIOS = {"none": 1, "fp16": 4, "bf16": 4, "int8": 8, "qsgd": 14, "sign": 50, "top-k": 40, "random-k": 40}


@pytest.mark.parametrize(("name", "ratio"), BYTE_RATIOS.items())
def test_bytes_against_float64(name, ratio):
    x = np.random.default_rng(0).standard_normal(100_000)
    payload, _ = encode(gradient_codec(name), x)
    assert x.nbytes / len(payload) > ratio * (1 - 1e-3)  # headers of up to 20 bytes are counted


class TestQuantisation:
    @quick
    @given(x=vectors)
    def test_fp16_is_numpy_half_of_the_scaled_vector(self, x):
        scale = 2.0 ** np.frexp(np.abs(x).max())[1]
        np.testing.assert_array_equal(
            Float16().decode(encode(Float16(), x)[0]), (x / scale).astype(np.float16) * scale
        )

    @pytest.mark.parametrize("scale", [1e-29, 1e-9, 1e9, 1e29])
    def test_fp16_neither_overflows_nor_vanishes(self, scale):
        x = np.array([1.0, -0.5, 0.001]) * scale
        np.testing.assert_allclose(Float16().decode(encode(Float16(), x)[0]), x, rtol=2**-10)

    @quick
    @given(x=vectors)
    def test_bf16_rounds_to_eight_bits_half_to_even(self, x):
        mantissa, exponent = np.frexp(x.astype(np.float32).astype(np.float64))
        expected = np.ldexp(np.rint(mantissa * 256), exponent - 8)
        np.testing.assert_array_equal(BFloat16().decode(encode(BFloat16(), x)[0]), expected)

    @quick
    @given(x=vectors)
    def test_int8_is_within_half_a_step(self, x):
        decoded = Int8().decode(encode(Int8(), x)[0])
        assert np.abs(decoded - x).max() <= np.abs(x).max() / 254 * (1 + 1e-5) + 1e-40

    def test_int8_sums_are_exact_and_widen_when_they_must(self):
        codec, x = Int8(), np.array([1.0, -1.0, 0.25])
        one, _ = codec.encode(x, codec.agree(codec.init(3), 1.0), np.random.default_rng(0))
        total, header = one, len(one) - 3
        for count in range(2, 301):
            total = codec.add(total, one)
            assert len(total) == header + 3 * (2 if count <= 258 else 4)
        np.testing.assert_allclose(codec.decode(total), 300 * codec.decode(one), rtol=1e-14)

    def test_int8_sums_beyond_32_bits_are_refused(self):
        most = (2**31 - 1) // 127
        one, _ = Int8().encode([1.0], {"range": np.asarray(1.0)}, np.random.default_rng(0))
        payload = struct.pack("<fI", 1.0, most) + np.array([127 * most], "<i4").tobytes()
        assert Int8().decode(payload) == pytest.approx([most])
        with pytest.raises(IncompatibleError, match="Decode them and add the vectors"):
            Int8().add(payload, one)
        for count in (0, most + 1):
            with pytest.raises(CorruptDataError):
                Int8().decode(struct.pack("<fI", 1.0, count) + bytes(4))

    def test_int8_needs_a_common_range_to_add(self):
        codec = Int8()
        with pytest.raises(IncompatibleError, match="agree on one range"):
            codec.add(encode(codec, [1.0])[0], encode(codec, [2.0])[0])

    def test_int8_saturates_and_error_feedback_sends_the_rest(self):
        codec = ErrorFeedback(Int8())
        payload, state = codec.encode([3.0, 0.0], codec.agree(codec.init(2), 1.0), np.random.default_rng(0))
        np.testing.assert_allclose(codec.decode(payload), [1.0, 0.0])
        np.testing.assert_allclose(state["error"], [2.0, 0.0])
        assert codec.propose([3.0, 0.0], state) == pytest.approx(5.0)

    def test_sign_by_hand(self):
        decoded = Sign().decode(encode(Sign(), [3.0, -1.0, 0.0, -4.0])[0])
        np.testing.assert_array_equal(decoded, [2.0, -2.0, 2.0, -2.0])

    @quick
    @given(x=vectors)
    def test_sign_is_the_contraction_of_its_lemma(self, x):
        decoded = Sign().decode(encode(Sign(), x)[0])
        delta = np.abs(x).sum() ** 2 / (x.size * (x @ x)) if x.any() else 0.0
        assert np.sum((decoded - x) ** 2) <= (1 - delta) * (x @ x) + 1e-6 * (x @ x)

    @pytest.mark.parametrize(("levels", "bits"), [(1, 2), (3, 3), (7, 4), (15, 5), (127, 8)])
    def test_qsgd_packs_its_levels(self, levels, bits):
        codec = QSGD(levels=levels, bucket=1000)
        payload, _ = encode(codec, np.linspace(-1, 1, 1000))
        assert len(payload) == 4 + 4 + 1000 * bits // 8
        assert len(np.unique(codec.decode(payload))) == 2 * levels + 1


@pytest.mark.parametrize(
    "codec", [QSGD(), QSGD(levels=1), QSGD(levels=3, bucket=5), RandomK(0.2), RandomK(0.6, seed=5)], ids=repr
)
def test_random_codecs_are_unbiased_with_the_variance_they_state(codec):
    rng, repeats = np.random.default_rng(1), 4000
    x = rng.standard_normal(40) * np.geomspace(0.5, 10, 40)
    state, sample = codec.init(x.size), np.empty((repeats, x.size))
    for row in sample:
        payload, state = codec.encode(x, state, rng)
        row[:] = codec.decode(payload)
    standard_error = sample.std(axis=0) / np.sqrt(repeats)
    assert (np.abs(sample.mean(axis=0) - x) <= 5 * standard_error + 1e-5 * np.abs(x)).all()
    mean_square = np.sum((sample - x) ** 2, axis=1).mean()
    assert 0 < mean_square <= 1.05 * codec.variance(x.size) * (x @ x)


class TestSparsification:
    @quick
    @given(x=vectors)
    def test_top_k_keeps_the_largest(self, x):
        decoded = TopK(fraction=0.3).decode(encode(TopK(fraction=0.3), x)[0])
        kept = int(np.ceil(0.3 * x.size))
        largest = np.sort(np.abs(x))[::-1][:kept]
        np.testing.assert_allclose(np.sort(np.abs(decoded))[::-1][:kept], largest, rtol=1e-6)
        assert np.sum((decoded - x) ** 2) <= (1 - kept / x.size) * (x @ x) + 1e-6 * (x @ x)

    def test_random_k_chooses_alike_on_all_workers_and_anew_each_step(self):
        codec, rng = RandomK(fraction=0.1, seed=3), np.random.default_rng
        first, state = codec.encode(np.ones(100), codec.init(100), rng(1))
        other, _ = codec.encode(np.full(100, 2.0), codec.init(100), rng(2))
        second, _ = codec.encode(np.ones(100), state, rng(1))
        assert (np.flatnonzero(codec.decode(first)) == np.flatnonzero(codec.decode(other))).all()
        assert (np.flatnonzero(codec.decode(first)) != np.flatnonzero(codec.decode(second))).any()
        with pytest.raises(IncompatibleError, match="seed and step"):
            codec.add(first, second)

    @pytest.mark.parametrize("fraction", [0, -1, 1.1, np.nan])
    @pytest.mark.parametrize("kind", [TopK, RandomK])
    def test_fractions_outside_their_domain(self, kind, fraction):
        with pytest.raises(ParameterError, match="fraction"):
            kind(fraction=fraction)


class TestLowRank:
    def test_warm_start_converges_to_the_best_approximation(self):
        rng = np.random.default_rng(0)
        matrix = rng.standard_normal((12, 30)) @ np.diag(np.geomspace(1, 1e-3, 30))
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        best = (left[:, :3] * values[:3]) @ right[:3]
        codec = PowerSGD(shape=(12, 30), rank=3)
        state = codec.init(360)
        for _ in range(60):
            payload, state = codec.encode(matrix.ravel(), state, rng)
        np.testing.assert_allclose(codec.decode(payload).reshape(12, 30), best, atol=1e-5)
        assert len(payload) == 4 + 4 * 3 * (12 + 30)

    def test_low_rank_matrices_survive_whole(self):
        rng = np.random.default_rng(0)
        x = np.outer(rng.standard_normal(5), rng.standard_normal(8)).ravel()
        codec = PowerSGD(shape=(5, 8), rank=1)
        np.testing.assert_allclose(codec.decode(encode(codec, x)[0]), x, rtol=1e-4, atol=1e-6)

    def test_the_shape_must_fit(self):
        with pytest.raises(ParameterError, match="shape must hold 10 entries"):
            PowerSGD(shape=(3, 3)).init(10)


class TestErrorFeedback:
    @pytest.mark.parametrize("codec", PLAIN, ids=repr)
    def test_nothing_is_lost(self, codec):
        """What was sent plus what is kept is what went in."""
        rng, wrapped = np.random.default_rng(0), ErrorFeedback(codec)
        state, sent, given_in = wrapped.init(60), np.zeros(60), np.zeros(60)
        for _ in range(50):
            x = rng.standard_normal(60)
            payload, state = wrapped.encode(x, state, rng)
            sent, given_in = sent + wrapped.decode(payload), given_in + x
        np.testing.assert_allclose(sent + state["error"], given_in, atol=1e-9)

    @pytest.mark.parametrize("codec", PLAIN, ids=repr)
    def test_state_survives_a_checkpoint(self, codec):
        wrapped, rng = ErrorFeedback(codec), np.random.default_rng
        _, state = wrapped.encode(np.linspace(-1, 2, 30), wrapped.init(30), rng(0))
        restored = _through_file(state)
        x = np.linspace(3, -1, 30)
        assert wrapped.encode(x, state, rng(1))[0] == wrapped.encode(x, restored, rng(1))[0]

    def test_only_once_and_only_for_its_own_size(self):
        with pytest.raises(ParameterError, match="without error feedback"):
            ErrorFeedback(ErrorFeedback(Sign()))
        with pytest.raises(ParameterError, match=r"shape \(3,\)"):
            ErrorFeedback(Sign()).encode(np.ones(4), ErrorFeedback(Sign()).init(3), np.random.default_rng(0))

    @pytest.mark.parametrize("codec", [*PLAIN, PowerSGD(shape=(4, 5), rank=1)], ids=repr)
    def test_the_optimum_is_reached(self, codec):
        assert _excess(ErrorFeedback(codec)) < 1e-3

    @pytest.mark.parametrize(
        "codec", [Sign(), TopK(0.05), PowerSGD(rank=1), PowerSGD(shape=(4, 5), rank=1)], ids=repr
    )
    def test_the_biased_ones_do_not_reach_it_alone(self, codec):
        assert _excess(codec) > 10 * _excess(ErrorFeedback(codec))
        assert _excess(codec) > 1e-2


def _through_file(state):
    if isinstance(state, dict):
        return {name: _through_file(value) for name, value in state.items()}
    file = io.BytesIO()
    np.save(file, state)
    file.seek(0)
    return np.load(file, allow_pickle=False)


@functools.cache
def _excess(codec, workers=4, size=20, steps=2000):
    """Relative excess over the least-squares optimum after gradient descent on data that differ between workers."""
    rng = np.random.default_rng(42)
    parts = [(rng.standard_normal((30, size)), rng.standard_normal(30) * 3 + 2 * w) for w in range(workers)]
    X, y = (np.concatenate(side) for side in zip(*parts, strict=True))
    optimum = np.sum((X @ np.linalg.lstsq(X, y)[0] - y) ** 2)
    smoothness = np.linalg.eigvalsh(X.T @ X)[-1]
    coef, states = np.zeros(size), [codec.init(size) for _ in parts]
    for step in range(steps):
        total = np.zeros(size)
        for worker, (A, b) in enumerate(parts):
            payload, states[worker] = codec.encode(A.T @ (A @ coef - b), states[worker], rng)
            total += codec.decode(payload)
        coef = coef - total / smoothness / (1 + step / 50)
    return np.sum((X @ coef - y) ** 2) / optimum - 1
