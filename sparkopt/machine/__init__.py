"""One machine, without Spark: its worker processes, and the limits and folders that they share.

``ProcessPool`` in ``pool`` gives items to ``workers``, each a thread that owns one process and speaks with it over
pipes (``messages``); ``worker`` is what runs in that process. ``limits`` is what this process may use of the machine,
``folders`` where it keeps files that must not outlive it. Nothing here imports Spark. Start with ``pool``.
"""

from sparkopt.machine.limits import available_cores, available_memory
from sparkopt.machine.pool import ProcessPool
from sparkopt.machine.shared import SharedValue

__all__ = ["ProcessPool", "SharedValue", "available_cores", "available_memory"]
