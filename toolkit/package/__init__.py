"""Bundles for servers: Triton model repositories, written from a bundle and checked."""

from toolkit.package.check import check_repository
from toolkit.package.findings import CheckReport, Finding
from toolkit.package.options import PackageOptions
from toolkit.package.repository import Packaged, package_triton
from toolkit.package.steps import Step, package_steps
from toolkit.package.texts import package_texts

__all__ = [
    "CheckReport",
    "Finding",
    "PackageOptions",
    "Packaged",
    "Step",
    "check_repository",
    "package_steps",
    "package_texts",
    "package_triton",
]
