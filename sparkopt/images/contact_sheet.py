"""A picture of some images before and after a pipeline, side by side."""

from __future__ import annotations

from urllib.parse import unquote

import cv2
import numpy as np

from sparkopt.images.pipeline import Compose, Decode
from sparkopt.images.spatial import ResizeLongerSide
from sparkopt.io.image_header import read_header
from sparkopt.typing import Array

__all__ = ["contact_sheet"]


def contact_sheet(pairs: list[tuple[str, bytes, bytes]], side: int = 220, gap: int = 18, caption: int = 26) -> Array:
    """Draw each (path, before, after) as a column: the file name, then two tiles with their sizes below."""
    ground, ink, faint = (250, 250, 248), (40, 40, 44), (130, 130, 136)
    top, left = gap + caption, gap + 66
    height, width = top + 2 * (side + caption + gap), left + len(pairs) * (side + gap)
    sheet = np.full((height, width, 3), ground, np.uint8)

    def write(text: str, x: int, y: int, color: tuple[int, int, int]) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_DUPLEX, 0.42, color, 1, cv2.LINE_AA)

    for index, (path, *encoded) in enumerate(pairs):
        x = left + index * (side + gap)
        name = unquote(path).rsplit("/", 1)[-1].encode("ascii", "replace").decode()
        write(name if len(name) <= 26 else f"{name[:23]}...", x, gap + 14, ink)
        for row, data in enumerate(encoded):
            y, (rows, columns) = top + row * (side + caption + gap), read_header(data).size
            shown = Compose([Decode(), ResizeLongerSide(side)])(data)
            down, across = y + (side - shown.shape[0]), x  # tiles are aligned at the bottom
            sheet[down : down + shown.shape[0], across : across + shown.shape[1]] = shown
            write(f"{columns} x {rows}, {len(data) / 1000:,.0f} kB", x, y + side + 18, faint)
    for row, word in enumerate(("before", "after")):
        write(word, gap, top + row * (side + caption + gap) + side, ink)
    return sheet
