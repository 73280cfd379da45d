"""Whether a fit can be trusted, found out in one pass over the rows."""

from pymc_streaming.diagnosis.records import Diagnosis, Finding, FindingKind, GroupCounts, Missing
from pymc_streaming.diagnosis.run import diagnose

__all__ = ["Diagnosis", "Finding", "FindingKind", "GroupCounts", "Missing", "diagnose"]
