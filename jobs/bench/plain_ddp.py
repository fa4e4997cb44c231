"""The loop for comparison: DistributedDataParallel on tensors in memory, without anything else.

    python -m torch.distributed.run --standalone --nproc-per-node 2 jobs/bench/plain_ddp.py data.npz EPOCHS BATCH_SIZE

Rank 0 prints one line of JSON: seconds of each epoch, and the last epoch's mean loss.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sparkopt.deep.networks import ConvNet


def main() -> None:
    """Train."""
    path, epochs, batch_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)  # two processes share two cores, as Spark's tasks do
    rank, size = distributed.get_rank(), distributed.get_world_size()
    data = np.load(path)
    images = torch.from_numpy(data["images"]).float()[:, None] / 255
    labels = torch.from_numpy(data["labels"])
    torch.manual_seed(0)
    network = DistributedDataParallel(ConvNet(10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss_of, seconds = nn.CrossEntropyLoss(), []
    for epoch in range(epochs):
        own = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))[rank::size]
        begin, total = time.perf_counter(), torch.zeros(())
        batches = own.split(batch_size)
        for rows in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(network(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        distributed.barrier()
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        print("RESULT " + json.dumps({"seconds": seconds, "loss": float(total) / len(batches)}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
