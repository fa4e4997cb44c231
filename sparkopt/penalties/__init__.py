"""Penalties: what is added to the mean loss, once, after the sum over the data."""

from sparkopt.penalties.base import Coordinates, NoPenalty, Penalty
from sparkopt.penalties.box import Box
from sparkopt.penalties.elastic_net import L1, L2, ElasticNet
from sparkopt.penalties.group import GroupLasso

__all__ = ["L1", "L2", "Box", "Coordinates", "ElasticNet", "GroupLasso", "NoPenalty", "Penalty"]
