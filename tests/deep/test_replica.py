"""What travels together: buckets of gradients."""

from __future__ import annotations

import torch
from torch import nn

from sparkopt.deep.replica import _buckets


def test_buckets_follow_the_backward_pass():
    """Under Horovod: last parameters first, of one type each, and none beyond the bound but a single one."""
    sizes = [8, 3 * 2**20, 4 * 2**20, 16, 7 * 2**20]
    parameters = [nn.Parameter(torch.zeros(size)) for size in sizes]
    half = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    found = _buckets([*parameters, half])
    assert [[p.numel() for p in bucket] for bucket in found] == [[4], [7 * 2**20], [16, 4 * 2**20], [3 * 2**20, 8]]
    assert found[0][0] is half
