"""Text from a decoder bundle with ONNX Runtime alone: greedy, sampled or by beam search."""

from toolkit.generation.decoder import Decoder
from toolkit.generation.generate import Generated, Generator
from toolkit.generation.settings import GenerationSettings
from toolkit.generation.source import Encoder, Source

__all__ = ["Decoder", "Encoder", "Generated", "GenerationSettings", "Generator", "Source"]
