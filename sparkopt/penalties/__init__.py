"""Penalties: functions of the coefficients that are added to the mean loss.

A penalty is added once, after the sum over the data. Every penalty is a :class:`Penalty`: start reading at ``base``.
The members are in ``elastic_net`` (L1, L2 and their mixture), ``group`` (group lasso) and ``box`` (bounds).

Imports only ``errors``, ``typing`` and ``validation``, and NumPy.

To add a penalty, write the class in a module here, export it below, and add it to the table ``PENALTIES`` in
``tests/penalties/test_penalties.py``, which checks gradients, proximal operators and invariances of every member.
"""

from sparkopt.penalties.base import Coordinates, NoPenalty, Penalty
from sparkopt.penalties.box import Box
from sparkopt.penalties.elastic_net import L1, L2, ElasticNet
from sparkopt.penalties.group import GroupLasso

__all__ = ["L1", "L2", "Box", "Coordinates", "ElasticNet", "GroupLasso", "NoPenalty", "Penalty"]
