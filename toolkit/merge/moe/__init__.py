"""Sparse mixtures of dense models: the feed-forward layers of fine-tunes become experts.

Sparse upcycling (Komatsuzaki et al. 2023, arXiv:2212.05055) of several fine-tunes of one base,
with mergekit-moe's configuration: attention, norms and embeddings are the base's, and the router
of each layer starts from what prompts look like there, or at random.
"""

from toolkit.merge.moe.config import ExpertSource, MoeConfig, from_mapping, is_moe
from toolkit.merge.moe.making import make_moe, plan_moe

__all__ = ["ExpertSource", "MoeConfig", "from_mapping", "is_moe", "make_moe", "plan_moe"]
