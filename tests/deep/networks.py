"""Networks that the tests train: at module level, since ranks import them by name."""

from __future__ import annotations

import torch
from torch import nn

from sparkopt.deep import builder


class Mlp(nn.Module):
    """Two layers, with batch normalisation or dropout where asked."""

    def __init__(self, features: int = 4, classes: int = 3, hidden: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.out(self.dropout(torch.tanh(self.hidden(x))))


class Normalised(nn.Module):
    """With running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.norm(x))


class Pair(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(1, 2, 3)
        self.out = nn.Linear(2 * 6 * 6 + 1, 10)

    def forward(self, image, number):
        return self.out(torch.cat([self.image(image).flatten(1), number[:, None].float()], 1))


class Towers(nn.Module):
    """Two towers, of users and of items with their properties."""

    def __init__(self, users: int = 20, items: int = 30, properties: int = 2) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, 4), nn.Embedding(items, 4)
        self.properties = nn.Linear(properties, 4)

    def forward(self, user, item, properties):
        return (self.users(user) * (self.items(item) + self.properties(properties))).sum(1)


def mlp():
    return Mlp()


def wide():
    """With a matrix that PowerSGD compresses."""
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))


def dropping():
    return Mlp(dropout=0.3)


def digits_cnn():
    """For 8 x 8 images of one channel."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


@builder
def marked(hidden: int = 3):
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 1))
