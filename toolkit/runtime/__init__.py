"""What runs a model: PyTorch, ONNX Runtime, ensembles, groups, stacks, behind one protocol."""

from toolkit.runtime.base import Array, Feeds, Outputs, Runner
from toolkit.runtime.choices import Choice, Watched, choices_in
from toolkit.runtime.ensemble import EnsembleRunner, Gating, Weighted, interpolate
from toolkit.runtime.gate import GateRule, interpolate_gated, log_weights
from toolkit.runtime.group import GroupRunner
from toolkit.runtime.jitter import ChangedSource, NarrowedSource, jitter
from toolkit.runtime.ort import OrtRunner, Provider, open_session, providers, share_threads
from toolkit.runtime.program import ProgramTrace
from toolkit.runtime.pytorch import TorchRunner
from toolkit.runtime.renamed import Renamed
from toolkit.runtime.stack import StackRunner
from toolkit.runtime.translated import Translated, Translation
from toolkit.runtime.tree import (
    Traced,
    TracedEnsemble,
    TracedGate,
    TracedGroup,
    TracedLeaf,
    TracedStack,
    TreeTrace,
)

__all__ = [
    "Array",
    "ChangedSource",
    "Choice",
    "EnsembleRunner",
    "Feeds",
    "GateRule",
    "Gating",
    "GroupRunner",
    "NarrowedSource",
    "OrtRunner",
    "Outputs",
    "ProgramTrace",
    "Provider",
    "Renamed",
    "Runner",
    "StackRunner",
    "TorchRunner",
    "Traced",
    "TracedEnsemble",
    "TracedGate",
    "TracedGroup",
    "TracedLeaf",
    "TracedStack",
    "Translated",
    "Translation",
    "TreeTrace",
    "Watched",
    "Weighted",
    "choices_in",
    "interpolate",
    "interpolate_gated",
    "jitter",
    "log_weights",
    "open_session",
    "providers",
    "share_threads",
]
