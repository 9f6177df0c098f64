"""The models of a bundle as graphs of their own, to hold the fused one against."""

from __future__ import annotations

from pathlib import Path

import graphs
from toolkit.bundle import Bundle
from toolkit.errors import BundleError
from toolkit.pipeline.bundled import bundle_plan, check_unchanged
from toolkit.pipeline.experts import settle_experts
from toolkit.pipeline.graph import asked_passes, export_leaves
from toolkit.progress import Progress, silent

__all__ = ["export_members"]


def export_members(
    bundle: Bundle,
    folder: Path,
    *,
    allow_code: bool = False,
    root: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Path]:
    """Write every model of the bundle's recipe as ONNX into the empty ``folder``.

    Each goes through the recipe's passes alone: what differs from the fused graph is fusing.

    Args:
        bundle: The bundle.
        folder: Where the files go.
        allow_code: Whether factories may run.
        root: Where the recipe's models lie, if not where they lay at export.
        progress: Told of every model.

    Returns:
        Files by the member's path in the ensemble.

    Raises:
        BundleError: If the bundle is made of one model, or its models are gone or have changed.
        ToolkitError: If a model cannot be exported.
    """
    plan = bundle_plan(bundle, allow_code=allow_code, root=root)
    check_unchanged(bundle, plan)
    if len(list(plan.leaves())) < 2:
        raise BundleError(
            f"{bundle.folder} is made of one model, so there are no members to hold it against",
            hint="leave out --members",
        )
    raw = folder / "exported"
    raw.mkdir()
    exported = export_leaves(plan, raw, progress)
    plan, _ = settle_experts(plan, exported.values(), progress)
    passes = (graphs.StripExporterMetadata(), *asked_passes(plan))
    made = {}
    for number, (name, path) in enumerate(exported.items()):
        made[name] = folder / f"{number}.onnx"
        graphs.rewrite(path, passes, made[name])
    return made
