"""What is communicated together: buckets of gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparkopt.deep.replica import _buckets, _is_full
from sparkopt.errors import IncompatibleError


def test_buckets_follow_the_backward_pass():
    """Under Horovod: last parameters first, of one type each, and none beyond the bound but a single one."""
    sizes = [8, 3 * 2**20, 4 * 2**20, 16, 7 * 2**20]
    parameters = [nn.Parameter(torch.zeros(size)) for size in sizes]
    half = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    found = _buckets([*parameters, half])
    assert [[p.numel() for p in bucket] for bucket in found] == [[4], [7 * 2**20], [16, 4 * 2**20], [3 * 2**20, 8]]
    assert found[0][0] is half


def test_a_bucket_waits_for_each_gradient_once():
    """A gradient that is computed twice must not stand for one that has not come: it would be sent as zeros."""
    bucket, arrived = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(5))], set()
    assert not _is_full(bucket, arrived, bucket[1])
    with pytest.raises(IncompatibleError, match=r"shape \(5,\) is computed twice"):
        _is_full(bucket, arrived, bucket[1])
    assert _is_full(bucket, arrived, bucket[0])
