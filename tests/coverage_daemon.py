"""The daemon of Spark's workers for `make coverage`: workers are forked and killed, so each saves after every task.

It is named by ``spark.python.daemon.module``. Coverage has been started by then, as in every process of that command.
"""

from __future__ import annotations

import socket

from coverage import Coverage
from pyspark import daemon

_work = daemon.worker


def _measured(sock: socket.socket, authenticated: bool) -> int:
    try:
        return _work(sock, authenticated)
    finally:
        if running := Coverage.current():
            running.save()


if __name__ == "__main__":
    daemon.worker = _measured
    daemon.manager()
