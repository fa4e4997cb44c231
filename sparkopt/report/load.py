"""Receipts of either kind from files."""

from __future__ import annotations

from pathlib import Path

from sparkopt.report.base import read_json
from sparkopt.report.deep import DeepReceipt
from sparkopt.report.receipt import Receipt

__all__ = ["load_receipt"]


def load_receipt(path: str | Path) -> Receipt | DeepReceipt:
    """Return the receipt in a file, that of a linear model or that of a network.

    Parameters
    ----------
    path : str or Path
        A ``receipt.json``.

    Raises
    ------
    DataError
        Where the file does not exist, or is no receipt.
    """
    data = read_json(path)
    return DeepReceipt.from_dict(data) if "launcher" in data else Receipt.from_dict(data)
