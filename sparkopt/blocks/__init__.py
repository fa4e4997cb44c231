"""Rows as arrays: what a block is, how columns become blocks, and where blocks are kept."""
