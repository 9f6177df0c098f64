"""Bundles for servers: Triton model repositories, written from a bundle and checked."""

from toolkit.package.options import PackageOptions
from toolkit.package.repository import Packaged, package_triton

__all__ = ["PackageOptions", "Packaged", "package_triton"]
