"""Model configurations as protobuf messages: read strictly, written by protobuf's own printer.

The messages are built from ``schema_table`` when they are first needed. Triton's own generated
ones come with its client, which pins a protobuf older than the one ONNX is used with here; in text
format only names matter, and a test holds the table against the client's.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from toolkit.errors import PackageError
from toolkit.package.schema_table import ENUMS, MESSAGES, ROOT

__all__ = ["new_config", "parse_config", "print_config"]

_PACKAGE = "triton_config"
_FIELD = re.compile(r"(\w+) (\w+)(\*|\{\})?(?:\|(\w+))?")
_SCALARS = {"string", "bool", "int32", "int64", "uint32", "uint64", "float", "double"}
_PLACE = re.compile(r"^(\d+):(\d+) : (.*)$", re.DOTALL)


def new_config() -> Any:
    """An empty ``ModelConfig``."""
    return _message_class()()


def parse_config(text: str, where: str) -> Any:
    """Read ``config.pbtxt``: syntax, names, types and enumerations, nothing else.

    Raises:
        PackageError: With line and column.
    """
    try:
        return text_format.Parse(text, new_config())
    except text_format.ParseError as error:
        match = _PLACE.match(str(error))
        place, said = (f":{match[1]}:{match[2]}", match[3]) if match else ("", str(error))
        said = " ".join(said.replace(f"{_PACKAGE}.", "").split())
        raise PackageError(f"{where}{place}: {said}") from error


def print_config(config: Any) -> str:
    """The text of ``config.pbtxt``; every field that was set is printed, zeros too."""
    text: str = text_format.MessageToString(config, use_short_repeated_primitives=True)
    return text


@cache
def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        _fill(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{_PACKAGE}.{ROOT}")
    return message_factory.GetMessageClass(found)


def _fill(message: Any, fields: str) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    groups: dict[str, int] = {}
    for number, field in enumerate(filter(None, fields.split(", ")), 1):
        match = _FIELD.fullmatch(field)
        assert match is not None, field
        name, kind, many, group = match.groups()
        if many == "{}":
            entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
            _fill(message.nested_type.add(name=entry), f"key string, value {kind}")
            kind = f"{message.name}.{entry}"
        made = message.field.add(
            name=name, number=number, label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
        )
        if kind in _SCALARS:
            made.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
        else:
            made.type = kinds.TYPE_ENUM if kind in ENUMS else kinds.TYPE_MESSAGE
            made.type_name = f".{_PACKAGE}.{kind}"
        if group:
            if group not in groups:
                groups[group] = len(groups)
                message.oneof_decl.add(name=group)
            made.oneof_index = groups[group]
