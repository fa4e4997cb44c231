"""A small network for jobs, notebooks and first experiments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparkopt.errors import ParameterError
from sparkopt.validation import Interval, check

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """A convolutional classifier: blocks of convolution, normalisation, ReLU and pooling, then a mean over pixels.

    Group normalisation is used rather than batch normalisation: its result does not depend on how rows are cut into
    batches and processes. The mean over pixels makes the number of weights independent of the images' size.

    Parameters
    ----------
    classes : int
        Number of scores, at least 2.
    channels : int, default 1
        Of the images: 1 for gray, 3 for colour.
    widths : sequence of int, default (32, 64, 128)
        Channels of each block, multiples of 8. Every block but the last halves height and width, as far as these go.
    dropout : float, default 0.1
        Share of the last block's means that training drops, in [0, 1).

    References
    ----------
    Wu and He, "Group Normalization", ECCV 2018. Lin, Chen and Yan, "Network in Network", ICLR 2014, section 3.2, for
    the mean over pixels.

    Examples
    --------
    >>> ConvNet(classes=10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, classes: int, channels: int = 1, widths: Sequence[int] = (32, 64, 128), dropout: float = 0.1
    ) -> None:
        super().__init__()
        check("classes", classes, Interval(2, None, whole=True))
        check("channels", channels, Interval(1, None, whole=True))
        check("dropout", dropout, Interval(0, 1, closed="left"))
        if not widths or any(width < 8 or width % 8 for width in widths):
            raise ParameterError(f"widths must be multiples of 8, one at least. Got {list(widths)} instead.")
        layers: list[nn.Module] = []
        for before, width in zip((channels, *widths), widths, strict=False):
            if layers:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU()]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (rows, classes) of images (rows, channels, height, width)."""
        scores: torch.Tensor = self.head(self.blocks(images).mean((2, 3)))
        return scores
