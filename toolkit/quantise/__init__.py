"""Low precision in a finished graph, by quantisers that others maintain."""

from toolkit.quantise.calling import QUANTISERS, quantise
from toolkit.quantise.options import Quantised, QuantiseOptions

__all__ = ["QUANTISERS", "QuantiseOptions", "Quantised", "quantise"]
