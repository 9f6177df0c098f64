"""What runs a model: PyTorch, ONNX Runtime, ensembles, groups, stacks, behind one protocol."""

from toolkit.runtime.base import Array, Feeds, Outputs, Runner
from toolkit.runtime.choices import Choice, Watched, choices_in
from toolkit.runtime.engine import EngineFlavour, TrtRunner
from toolkit.runtime.ensemble import EnsembleRunner, Gating, Weighted, interpolate
from toolkit.runtime.gate import GateRule, interpolate_gated, log_weights
from toolkit.runtime.group import GroupRunner
from toolkit.runtime.jitter import ChangedSource, NarrowedSource, jitter
from toolkit.runtime.opening import (
    RUNTIMES,
    RuntimeName,
    open_runtime,
    require_runtime,
    runs_plans,
)
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
from toolkit.runtime.widening import is_large

__all__ = [
    "RUNTIMES",
    "Array",
    "ChangedSource",
    "Choice",
    "EngineFlavour",
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
    "RuntimeName",
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
    "TrtRunner",
    "Watched",
    "Weighted",
    "choices_in",
    "interpolate",
    "interpolate_gated",
    "is_large",
    "jitter",
    "log_weights",
    "open_runtime",
    "open_session",
    "providers",
    "require_runtime",
    "runs_plans",
    "share_threads",
]
