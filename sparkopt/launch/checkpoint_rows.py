"""Tensors of a checkpoint that are divided over ranks: each rank's rows are a file, which others may read too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, TypeAlias

import torch
from safetensors.torch import load as load_tensors

from sparkopt.values import dataclass

__all__ = ["FileFacts", "Rows", "rows_for"]

FileFacts: TypeAlias = dict[str, Any]
"""Name, size and CRC-32 of a file."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a tensor that is divided over ranks by its first dimension.

    Attributes
    ----------
    shape : tuple of int
        Of the whole tensor.
    local : Tensor
        The rows of one rank.
    """

    shape: tuple[int, ...]
    local: torch.Tensor = field(repr=False)

    @staticmethod
    def span(rows: int, rank: int, size: int) -> range:
        """Return which of a tensor's rows are a rank's: those of ``torch.chunk``, of which the last have fewer.

        Examples
        --------
        >>> [Rows.span(5, rank, 4) for rank in range(4)]
        [range(0, 2), range(2, 4), range(4, 5), range(5, 5)]
        """
        most = -(-rows // size)
        return range(min(rows, rank * most), min(rows, (rank + 1) * most))


def rows_for(
    manifest: Mapping[str, Any], rank: int, size: int, read: Callable[[FileFacts], bytes]
) -> dict[str, torch.Tensor]:
    """Return a rank's rows of the tensors that a checkpoint has divided, over whatever number of ranks.

    ``read`` gives the content of a part; only those are read that have any of these rows.
    """
    parts = manifest.get("parts", ())
    shapes = dict(_shapes({"dict": [["state", manifest["state"]], ["model", manifest["model"]]]})) if parts else {}
    pieces: dict[str, list[torch.Tensor]] = {path: [] for path in shapes}
    for number, part in enumerate(parts):
        wanted = {}
        for path, shape in shapes.items():
            own, held = Rows.span(shape[0], rank, size), Rows.span(shape[0], number, len(parts))
            wanted[path] = slice(max(own.start, held.start) - held.start, min(own.stop, held.stop) - held.start)
        is_own = number == rank % len(parts)  # even where it has none of the rows, for their type
        if is_own or any(one.start < one.stop for one in wanted.values()):
            tensors = load_tensors(read(part))
            for path, one in wanted.items():
                if is_own or one.start < one.stop:
                    pieces[path].append(tensors[path][one.start : max(one.start, one.stop)])
    return {path: torch.cat(found) for path, found in pieces.items()}


def _shapes(tree: Any) -> Iterator[tuple[str, list[int]]]:
    """Return paths and shapes of the divided tensors of a tree."""
    if not isinstance(tree, dict):
        return
    ((kind, content),) = tree.items()
    if kind == "rows":
        yield content[0], content[1]
    elif kind in ("dict", "list", "tuple"):
        for item in content:
            yield from _shapes(item[1] if kind == "dict" else item)
