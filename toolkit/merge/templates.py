"""``chat_template`` of a merge: by name, as text, or the one most models have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.errors import MergeError

__all__ = ["NAMED", "chat_template", "set_chat_template"]

_FILE, _SETTINGS = "chat_template.jinja", "tokenizer_config.json"

# Written from the formats' descriptions: the markers are facts, the templates are ours.
NAMED: Mapping[str, str] = {
    "chatml": (
        "{% for message in messages %}"
        "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "alpaca": (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
        "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
        "{% else %}### Response:\n{{ message['content'] }}\n\n{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for message in messages %}"
        "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] }}<|eot_id|>"
        "{% endfor %}"
        "{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
        "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
}


def chat_template(wanted: str, models: Sequence[Path]) -> str:
    """The template's text; empty where the commonest is wanted and no model has one.

    Args:
        wanted: A name of ``NAMED``, ``auto`` for the commonest among the models, or the text.
        models: Folders of the models, the one whose tokenizer is kept first.

    Raises:
        MergeError: If it is none of these, or there is no tokenizer to have it.
    """
    text = _commonest(models) if wanted == "auto" else NAMED.get(wanted, wanted)
    if text and ("{" not in text or len(text) < 20):
        raise MergeError(
            f"chat_template is {wanted!r}, neither a template nor a known name",
            hint="auto, " + ", ".join(NAMED) + ", or the template itself",
        )
    if text and not (models and (models[0] / _SETTINGS).is_file()):
        raise MergeError(f"chat_template is set, and the donor model has no {_SETTINGS}")
    return text


def set_chat_template(folder: Path, text: str) -> None:
    """Write the template beside the tokenizer, as transformers reads it."""
    path = folder / _SETTINGS
    content = _settings(path)
    content.pop("chat_template", None)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / _FILE).write_text(text, encoding="utf-8")


def _commonest(models: Sequence[Path]) -> str:
    found = [text.strip() for text in map(_template_of, models) if text and text.strip()]
    return Counter(found).most_common(1)[0][0] if found else ""


def _template_of(folder: Path) -> str:
    if (folder / _FILE).is_file():
        return (folder / _FILE).read_text(encoding="utf-8")
    path = folder / _SETTINGS
    value = _settings(path).get("chat_template", "") if path.is_file() else ""
    return value if isinstance(value, str) else ""


def _settings(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise MergeError(f"{path} does not hold a JSON object")
    return content
