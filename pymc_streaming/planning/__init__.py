"""Planning: which way a fit goes over its table, by the memory there is."""

from pymc_streaming.limits import check_fraction, check_limit, memory_limit
from pymc_streaming.planning.estimate import Fit, ways
from pymc_streaming.planning.strategy import STRATEGIES, Plan, choose

__all__ = [
    "STRATEGIES",
    "Fit",
    "Plan",
    "check_fraction",
    "check_limit",
    "choose",
    "memory_limit",
    "ways",
]
