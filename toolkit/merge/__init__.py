"""Merging: several checkpoints of one architecture become one, without loading them.

``merge`` takes a config in mergekit's grammar and writes a folder in Hugging Face's layout;
``plan`` says from headers alone what it would do.
"""

from toolkit.merge.config import MergeConfig, from_mapping
from toolkit.merge.memory import merge_modules, merge_state_dicts
from toolkit.merge.merging import merge, merge_configs, plan, plan_configs
from toolkit.merge.options import MergeOptions
from toolkit.merge.outcome import MergeReport
from toolkit.merge.plan import MergePlan

__all__ = [
    "MergeConfig",
    "MergeOptions",
    "MergePlan",
    "MergeReport",
    "from_mapping",
    "merge",
    "merge_configs",
    "merge_modules",
    "merge_state_dicts",
    "plan",
    "plan_configs",
]
