#!/usr/bin/env python
"""Write scikit-learn's 1,797 handwritten digits as PNG files, one folder per digit: real images to train on.

Usage: python jobs/digits.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits


def write_digits(folder: Path) -> int:
    """Write every digit below ``folder`` as ``<digit>/<number>.png``, 8-bit gray; return how many there are."""
    images, labels = load_digits(return_X_y=True)
    done = folder / "COMPLETE"
    if not done.exists():
        for number, (image, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True)):
            path = folder / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), np.round(image * (255 / 16)).astype(np.uint8)):
                raise OSError(f"cannot write {path}")
        done.touch()
    return len(labels)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write_digits(Path(sys.argv[1]))} digits in {sys.argv[1]}")
