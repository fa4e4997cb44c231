"""Compare the codecs on real data: digits and photographs of scikit-learn, and a9a where its file is given.

Prints tables in Markdown. Run: python jobs/bench/codecs.py [--a9a FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.datasets import load_digits, load_sample_images, load_svmlight_file
from sklearn.linear_model import LogisticRegression

from sparkopt.codecs import ErrorFeedback, GradientCodec, NoCompression, compress, decompress, gradient_codec
from sparkopt.codecs.comparison import NO_CODEC, CodecComparison, byte_codecs, measure
from sparkopt.codecs.gradient import GRADIENT_CODECS

BLOCK = 2**20
FAST, SLOW = 125e6, 6.25e6  # 1 Gbit/s and 50 Mbit/s, in bytes per second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a9a", type=Path, help="LIBSVM file of a9a, plain or gzip")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()

    digits = load_digits()
    photographs = load_sample_images().images
    data = {
        "digits, float64": digits.data.tobytes(),
        "photographs, pixels": b"".join(image.tobytes() for image in photographs),
    }
    a9a = load_svmlight_file(str(arguments.a9a), n_features=123) if arguments.a9a else None
    if arguments.a9a:
        text = arguments.a9a.read_bytes()
        data["a9a, text"] = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
        data["a9a, float32 rows"] = a9a[0][:8192].toarray().astype(np.float32).tobytes()

    figures = {"lossless": lossless(data), "images": images(photographs), "gradients": gradients(1_000_000)}
    if a9a is not None:
        figures["a9a objective"] = objective(*a9a)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def lossless(data: dict[str, bytes]) -> list[dict[str, object]]:
    measurements = []
    for name, raw in data.items():
        blocks = [raw[start : start + BLOCK] for start in range(0, len(raw), BLOCK)]
        measurements += [measure(name, blocks, codec) for codec in [NO_CODEC, *byte_codecs()]]
    table = CodecComparison(tuple(measurements), FAST).to_pandas()
    for name in data:
        part = table[table["column"] == name]
        rows = part[["codec", "ratio", "encode MB/s", "decode MB/s"]].values.tolist()
        show(f"{name} ({len(data[name]) / 1e6:.1f} MB)", ["codec", "ratio", "encode MB/s", "decode MB/s"], rows)
        one = CodecComparison(tuple(m for m in measurements if m.column == name), FAST)
        for speed in (FAST, SLOW):
            print(f"Recommended at {speed * 8e-6:g} Mbit/s: {one.recommend(speed)[name]}")
    return table.drop(columns=["link ms", "recommended"]).replace(np.inf, None).to_dict("records")


def images(photographs: list[np.ndarray]) -> list[dict[str, object]]:
    rows = []
    raw = sum(image.nbytes for image in photographs)
    for codec, level in [("png", None), ("webp", 80), ("webp", 95), ("jpeg", 80), ("jpeg", 95)]:
        start = time.perf_counter()
        encoded = [compress(image, codec, level) for image in photographs]
        middle = time.perf_counter()
        decoded = [decompress(one, codec) for one in encoded]
        end = time.perf_counter()
        error = np.mean([np.mean((a.astype(float) - b) ** 2) for a, b in zip(photographs, decoded, strict=True)])
        psnr = 10 * np.log10(255**2 / error) if error else float("inf")
        speeds = [raw / 1e6 / seconds for seconds in (middle - start, end - middle)]
        rows.append([codec if level is None else f"{codec} {level}", raw / sum(map(len, encoded)), *speeds, psnr])
    head = ["codec", "ratio", "encode MB/s", "decode MB/s", "PSNR dB"]
    show(f"photographs as images ({raw / 1e6:.1f} MB)", head, rows)
    return records(head, rows)


def gradients(size: int) -> list[dict[str, object]]:
    """One gradient of many scales, the first step, each codec with error feedback."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size) * np.exp(rng.standard_normal(size))
    rows = []
    for name in GRADIENT_CODECS:
        codec = gradient_codec(name)
        state = codec.init(size)
        start = time.perf_counter()
        payload, _ = codec.encode(x, state, rng)
        middle = time.perf_counter()
        decoded = codec.decode(payload)
        end = time.perf_counter()
        error = np.linalg.norm(decoded - x) / np.linalg.norm(x)
        rows.append([name, x.nbytes / len(payload), 1e3 * (middle - start), 1e3 * (end - middle), error])
    head = ["codec", "ratio", "encode ms", "decode ms", "relative error"]
    show(f"a gradient of {size:,} float64 entries", head, rows)
    return records(head, rows)


def objective(X: csr_matrix, y: np.ndarray, workers: int = 4, steps: int = 1000) -> list[dict[str, object]]:
    """Logistic regression on a9a by gradient descent, each worker's gradient compressed."""
    X = X.toarray()
    penalty = 1e-3
    positive = (y > 0).astype(float)

    def loss(coef: np.ndarray) -> float:
        margin = X @ coef
        return float(np.mean(np.logaddexp(0, margin) - positive * margin) + 0.5 * penalty * coef @ coef)

    model = LogisticRegression(C=1 / (penalty * len(y)), fit_intercept=False, tol=1e-10, max_iter=5000).fit(X, y)
    best = loss(model.coef_.ravel())
    smoothness = np.linalg.eigvalsh(X.T @ X / len(y))[-1] / 4 + penalty
    parts = np.array_split(np.argsort(X[:, 0], kind="stable"), workers)  # workers whose data differ
    pieces = [(X[rows], positive[rows]) for rows in parts]

    def reached(codec: GradientCodec) -> float:
        rng, coef = np.random.default_rng(0), np.zeros(X.shape[1])
        states = [codec.init(coef.size) for _ in pieces]
        for step in range(steps):
            total = np.zeros_like(coef)
            for worker, (A, b) in enumerate(pieces):
                gradient = A.T @ (expit(A @ coef) - b) / len(y) + penalty * coef / workers
                payload, states[worker] = codec.encode(gradient, states[worker], rng)
                total += codec.decode(payload)
            coef = coef - total / smoothness / (1 + step / 250)
        return loss(coef)

    uncompressed = reached(NoCompression())
    rows = []
    for name in GRADIENT_CODECS:
        codec = gradient_codec(name)
        plain = codec.codec if isinstance(codec, ErrorFeedback) else codec
        rows.append([name, *(reached(one) / uncompressed - 1 for one in (codec, plain))])
    head = ["codec", "with error feedback", "without"]
    title = f"a9a, {workers} workers, {steps} steps: objective relative to {uncompressed:.6f} uncompressed"
    show(f"{title} (optimum {best:.6f})", head, rows, "{:+.1e}")
    return records(head, rows)


def records(head: list[str], rows: list[list[object]]) -> list[dict[str, object]]:
    return [dict(zip(head, row, strict=True)) for row in rows]


def show(title: str, head: list[str], rows: list[list[object]], number: str = "{:.3g}") -> None:
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print("|", " | ".join(number.format(cell) if isinstance(cell, float) else str(cell) for cell in row), "|")


if __name__ == "__main__":
    main()
