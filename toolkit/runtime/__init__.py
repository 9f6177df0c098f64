"""What runs a model: PyTorch, ONNX Runtime, or an ensemble of either, all behind one protocol."""

from toolkit.runtime.base import Array, Feeds, Outputs, Runner
from toolkit.runtime.ensemble import EnsembleRunner, Weighted
from toolkit.runtime.jitter import ChangedSource, NarrowedSource, jitter
from toolkit.runtime.ort import OrtRunner, Provider, open_session, providers
from toolkit.runtime.program import ProgramTrace
from toolkit.runtime.pytorch import TorchRunner
from toolkit.runtime.renamed import Renamed
from toolkit.runtime.tree import TracedEnsemble, TracedLeaf, TreeTrace

__all__ = [
    "Array",
    "ChangedSource",
    "EnsembleRunner",
    "Feeds",
    "NarrowedSource",
    "OrtRunner",
    "Outputs",
    "ProgramTrace",
    "Provider",
    "Renamed",
    "Runner",
    "TorchRunner",
    "TracedEnsemble",
    "TracedLeaf",
    "TreeTrace",
    "Weighted",
    "jitter",
    "open_session",
    "providers",
]
