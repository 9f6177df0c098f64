"""The output folder: written beside its final place, published by one rename, checked by hash."""

from toolkit.bundle.manifest import (
    EngineRecord,
    ExpertRecord,
    FileRecord,
    LayerRecord,
    Manifest,
    NeuronRecord,
    QuantisationRecord,
    SourceRecord,
    TensorRecord,
    hash_file,
    versions,
)
from toolkit.bundle.publish import (
    DISK_FULL,
    LABELS,
    MANIFEST,
    Draft,
    is_bundle,
    make_parents,
    partial_beside,
    publishing,
    put_in_place,
)
from toolkit.bundle.reading import Bundle, differences, open_bundle

__all__ = [
    "DISK_FULL",
    "LABELS",
    "MANIFEST",
    "Bundle",
    "Draft",
    "EngineRecord",
    "ExpertRecord",
    "FileRecord",
    "LayerRecord",
    "Manifest",
    "NeuronRecord",
    "QuantisationRecord",
    "SourceRecord",
    "TensorRecord",
    "differences",
    "hash_file",
    "is_bundle",
    "make_parents",
    "open_bundle",
    "partial_beside",
    "publishing",
    "put_in_place",
    "versions",
]
