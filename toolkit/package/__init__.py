"""Bundles for servers: Triton model repositories, written from a bundle and checked."""

from toolkit.package.check import check_repository
from toolkit.package.findings import CheckReport, Finding
from toolkit.package.options import PackageOptions
from toolkit.package.repository import Packaged, package_triton

__all__ = [
    "CheckReport",
    "Finding",
    "PackageOptions",
    "Packaged",
    "check_repository",
    "package_triton",
]
