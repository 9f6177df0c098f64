"""Text from a decoder bundle with ONNX Runtime alone: greedy, sampled or by beam search."""

from toolkit.generation.decoder import Decoder
from toolkit.generation.generate import Generated, Generator
from toolkit.generation.settings import GenerationSettings

__all__ = ["Decoder", "Generated", "GenerationSettings", "Generator"]
