"""Bundles for servers and programs: Triton model repositories, and C++ projects."""

from toolkit.package.beside import MARK
from toolkit.package.check import check_repository
from toolkit.package.cpp_program import CppPackaged, package_cpp
from toolkit.package.findings import CheckReport, Finding
from toolkit.package.options import PackageOptions
from toolkit.package.repository import Packaged, package_triton
from toolkit.package.steps import Step, package_steps
from toolkit.package.texts import package_texts

__all__ = [
    "MARK",
    "CheckReport",
    "CppPackaged",
    "Finding",
    "PackageOptions",
    "Packaged",
    "Step",
    "check_repository",
    "package_cpp",
    "package_steps",
    "package_texts",
    "package_triton",
]
