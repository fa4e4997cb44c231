"""Receipts: what a fit cost, in figures that its user can check, as text, JSON and a page."""

from sparkopt.report.deep import DeepReceipt
from sparkopt.report.load import load_receipt
from sparkopt.report.receipt import Receipt

__all__ = ["DeepReceipt", "Receipt", "load_receipt"]
