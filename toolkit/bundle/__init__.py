"""The output folder: written beside its final place, published by one rename, checked by hash."""

from toolkit.bundle.manifest import (
    EngineRecord,
    FileRecord,
    Manifest,
    SourceRecord,
    TensorRecord,
    hash_file,
    versions,
)
from toolkit.bundle.publish import MANIFEST, Draft, is_bundle, publishing
from toolkit.bundle.reading import Bundle, differences, open_bundle

__all__ = [
    "MANIFEST",
    "Bundle",
    "Draft",
    "EngineRecord",
    "FileRecord",
    "Manifest",
    "SourceRecord",
    "TensorRecord",
    "differences",
    "hash_file",
    "is_bundle",
    "open_bundle",
    "publishing",
    "versions",
]
