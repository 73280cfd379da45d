"""Planning: which way a fit goes over its table, by the memory there is."""

from pymc_streaming.planning.estimate import Fit, ways
from pymc_streaming.planning.limits import check_fraction, check_limit, memory_limit
from pymc_streaming.planning.strategy import Plan, check_strategy, choose

__all__ = [
    "Fit",
    "Plan",
    "check_fraction",
    "check_limit",
    "check_strategy",
    "choose",
    "memory_limit",
    "ways",
]
