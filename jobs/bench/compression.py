#!/usr/bin/env python
"""Seconds until a held-out loss is reached with encoded sums, on limited links.

    python jobs/bench/compression.py --rate 50mbit

Four workers, each behind its own network link, train the model of ``local_steps.py`` (1,000,000 parameters) by
gradient descent over all-reduce, once with each codec. Uncompressed steps go first: the others must
reach their final held-out loss, within 0.1%, in at most one and a half times as many steps. Seconds are the loop's,
without start-up. ``--rate none`` limits nothing; it shows the cost of auto where no codec pays.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from local_steps import CLASSES, FEATURES, ROOT, WHOLE_FILES, WORKERS, full_batch, generate, open_store
from network import Cluster

from sparkopt.launch.session import session
from sparkopt.report import Receipt

ROWS, STEP, STEPS = 4_000, 0.25, 30
CLOSE = 1e-3
CODECS = ("none", "int8", "top-k", "auto")


@dataclass(frozen=True)
class Reached:
    """When a fit reached the target loss; ``step`` is None where it did not."""

    receipt: Receipt
    step: int | None

    @classmethod
    def of(cls, receipt: Receipt, target: float) -> Reached:
        """Return the first step of a fit with the target loss."""
        close = (1 + CLOSE) * target
        steps = [step for step, loss in enumerate(receipt.validation) if loss is not None and loss <= close]
        return cls(receipt, steps[0] if steps else None)

    @property
    def seconds(self) -> float:
        """Seconds of the loop until then."""
        return float("nan") if self.step is None else self.receipt.elapsed[self.step] - self.receipt.elapsed[0]

    def row(self, name: str, slowest: Reached) -> str:
        """Return a row of the table."""
        sent = self.receipt.bytes
        return (
            f"| {name} | {self.step} | {self.seconds:.1f} | **{slowest.seconds / self.seconds:.1f}x** | "
            f"{sent['encoded'] / self.receipt.passes / 1e6:.2f} | {sent['raw'] / sent['encoded']:.1f}x |"
        )


def run(rate: str, step: float, codecs: list[str]) -> None:
    """Print the table."""
    generate(Path(".cache"), ROWS)
    found: dict[str, Reached] = {}
    with Cluster.up(WORKERS, None if rate == "none" else rate) as cluster:
        spark = session(ROOT / "conf/local.conf", "sparkopt bench", {**cluster.settings, **WHOLE_FILES})
        with open_store(spark, ROWS) as store:
            plain = full_batch(step, STEPS).fit(store).receipt
            target = plain.validation[-1]
            assert target is not None  # noqa: S101  # every step evaluates
            found["none"] = Reached.of(plain, target)
            for codec in codecs:
                receipt = replace(full_batch(step, 3 * STEPS // 2), compression=codec).fit(store).receipt
                found[codec] = Reached.of(receipt, target)
        spark.stop()
    where = f"links of {rate}" if cluster.is_limited else f"links not limited: {cluster.why_not}"
    print(
        f"\n{FEATURES * CLASSES:,} parameters, {ROWS:,} rows, {WORKERS} workers, {where}; held-out loss {target:.4f}"
    )
    print("\n| sums encoded by | steps | s | faster (none = 1) | MB sent a step | less than float64 |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(reached.row(name, found["none"]) for name, reached in found.items()))


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rate", default="50mbit", help="of each worker's link, in each direction")
    flags.add_argument("--step", type=float, default=STEP, help="step size")
    flags.add_argument("--codecs", default=",".join(CODECS[1:]), help="what to compare with none")
    args = flags.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sparkopt.communication.autotune").setLevel(logging.INFO)
    run(args.rate, args.step, args.codecs.split(","))


if __name__ == "__main__":
    main()
