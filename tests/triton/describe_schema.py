"""The fields of a protobuf message and of all below it; run alone, of Triton's ModelConfig."""

from __future__ import annotations

import json
import sys

__all__ = ["describe"]


def describe(message):
    """By field: type, whether it repeats, its group of alternatives, and what it holds."""
    found = {}
    for field in message.fields:
        holds = None
        if field.message_type:
            holds = describe(field.message_type)
        elif field.enum_type:
            holds = [value.name for value in field.enum_type.values]
        group = field.containing_oneof.name if field.containing_oneof else None
        repeated = getattr(field, "is_repeated", None)
        if repeated is None:
            repeated = field.label == field.LABEL_REPEATED
        found[field.name] = [field.type, repeated, group, holds]
    return found


if __name__ == "__main__":
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    sys.stdout.write(json.dumps(describe(ModelConfig.DESCRIPTOR)))
