"""Three replica groups of torchft, of one process each, of which one kills itself; jobs/bench/recovery.py starts it.

It is run by an interpreter that has torchft, which sparkopt's environment has not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

RANKS, AFTER = 3, 10
"""Groups, and steps that are taken after the loss."""


def note(path: Path) -> None:
    """Add a line with the time and this process."""
    with path.open("a") as lines:
        lines.write(f"{time.time()} {os.getpid()}\n")


def replica(number: int, lighthouse: str, folder: Path, at: int, pause: float, sizes: list[int]) -> None:
    """Train one group until enough steps are taken after the loss."""
    import torch
    from torch import distributed, nn
    from torchft import Manager, Optimizer, ProcessGroupGloo
    from torchft.ddp import PureDistributedDataParallel  # its DistributedDataParallel fails where a group is lost

    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    features, batch, hidden = sizes
    torch.manual_seed(number)
    torch.set_num_threads(1)
    module = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    inner = torch.optim.AdamW(module.parameters(), lr=0.01)

    def load(state: dict[str, dict[str, object]]) -> None:
        module.load_state_dict(state["model"])
        inner.load_state_dict(state["optimizer"])

    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=30)),
        load_state_dict=load,
        state_dict=lambda: {"model": module.state_dict(), "optimizer": inner.state_dict()},
        min_replica_size=RANKS - 1,
        replica_id=f"group-{number}",
        lighthouse_addr=lighthouse,
        quorum_timeout=timedelta(seconds=150),  # more than the lighthouse waits for a group that starts slowly
        store_addr="127.0.0.1",
        store_port=store.port,
        rank=0,
        world_size=1,
    )
    network, optimizer, after = PureDistributedDataParallel(manager, module), Optimizer(manager, inner), 0
    while after < AFTER:
        x = torch.randn(batch, features)
        optimizer.zero_grad()
        time.sleep(pause)
        loss = nn.functional.cross_entropy(network(x), (x[:, 0] > 0).long())
        if number == RANKS - 1 and manager.current_step() == at - 1:
            time.sleep(1.0)  # the others wait for this process's gradients now
            note(folder / "killed")
            os.kill(os.getpid(), signal.SIGKILL)
        before = manager.current_step()
        loss.backward()
        optimizer.step()
        if manager.current_step() > before:
            note(folder / "commits")
        after += (folder / "killed").exists()
    manager.shutdown(wait=False)


def main() -> None:
    """Start the lighthouse and the groups, or be a group."""
    if sys.argv[1] == "replica":
        _, _, number, lighthouse, name, at, pause, *sizes = sys.argv
        replica(int(number), lighthouse, Path(name), int(at), float(pause), [int(one) for one in sizes])
        os._exit(0)  # its threads wait for the group that is gone
    from torchft.coordination import LighthouseServer

    name, at, pause, hidden, heartbeat, join, features, batch = sys.argv[1:]
    server = LighthouseServer(
        "127.0.0.1:0", RANKS - 1, join_timeout_ms=int(join), heartbeat_timeout_ms=int(heartbeat)
    )
    shared = [server.address(), name, at, pause, features, batch, hidden]
    command = [sys.executable, "-W", "ignore", __file__, "replica"]
    ranks = [subprocess.Popen([*command, str(number), *shared]) for number in range(RANKS)]  # noqa: S603
    codes = [one.wait() for one in ranks]
    server.shutdown()
    if codes != [0, 0, -signal.SIGKILL]:
        raise SystemExit(f"the groups ended with {codes}")


if __name__ == "__main__":
    main()
