"""Reports: what a fit cost, as a receipt in figures that its user can check, as text, JSON and a page.

Receipts state their contents as ``Facts``; pages and comparisons draw any facts, those of jobs too. The package
imports nothing of sparkopt at run time but errors, so receipts are read without Spark and PyTorch. Start reading in
``receipt``, then ``facts`` and ``page``.
"""

from sparkopt.report.base import BaseReceipt
from sparkopt.report.comparison import Comparison, Difference, compare
from sparkopt.report.deep import DeepReceipt
from sparkopt.report.facts import Bars, Chart, Facts, Lines, Matrix, Measure, Picture, Series
from sparkopt.report.load import load_receipt
from sparkopt.report.page import write_report
from sparkopt.report.receipt import Receipt

__all__ = [
    "Bars",
    "BaseReceipt",
    "Chart",
    "Comparison",
    "DeepReceipt",
    "Difference",
    "Facts",
    "Lines",
    "Matrix",
    "Measure",
    "Picture",
    "Receipt",
    "Series",
    "compare",
    "load_receipt",
    "write_report",
]
