"""Weight files and model folders, read without torch: safetensors only, every byte accounted for.

Reading needs numpy and nothing else, and never more memory than asked for: headers are parsed,
tensors are memory-mapped. Pickled weights are refused, because unpickling runs code.
"""

from toolkit.checkpoint.experts import ExpertCounts, active_parameters, expert_counts
from toolkit.checkpoint.finite import check_finite
from toolkit.checkpoint.folder import (
    COMPRESSED,
    COMPRESSED_ENDING,
    Checkpoint,
    open_checkpoint,
)
from toolkit.checkpoint.header import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    Header,
    TensorEntry,
    read_header,
)
from toolkit.checkpoint.pickles import PICKLE_SUFFIXES, conversion_command
from toolkit.checkpoint.ties import tied

__all__ = [
    "COMPRESSED",
    "COMPRESSED_ENDING",
    "DTYPE_BITS",
    "MAX_HEADER_BYTES",
    "PICKLE_SUFFIXES",
    "Checkpoint",
    "ExpertCounts",
    "Header",
    "TensorEntry",
    "active_parameters",
    "check_finite",
    "conversion_command",
    "expert_counts",
    "open_checkpoint",
    "read_header",
    "tied",
]
