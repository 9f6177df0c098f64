"""Where a model's PyTorch meaning comes from: a Hugging Face folder, or a factory with weights.

A source knows its inputs and outputs before any weight is loaded, and loads as an
``nn.Module`` that takes the inputs as keyword arguments and returns a tuple of tensors.
"""

from toolkit.sources.base import Source
from toolkit.sources.factory import FactorySource
from toolkit.sources.huggingface import HuggingFaceSource
from toolkit.sources.seq2seq import Part, decoder_start

__all__ = ["FactorySource", "HuggingFaceSource", "Part", "Source", "decoder_start"]
