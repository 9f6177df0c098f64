"""Where a graph goes wrong: the first node that leaves its budget while its inputs have not."""

from toolkit.parity.explain.localise import ExplainOptions, Twin, explain
from toolkit.parity.explain.results import Explanation, Finding, Suspect
from toolkit.parity.explain.traces import Trace

__all__ = ["ExplainOptions", "Explanation", "Finding", "Suspect", "Trace", "Twin", "explain"]
