"""NVIDIA's run-time compiler, through its C interface: CUDA C++ in, PTX out. Needs no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import PluginError

__all__ = ["Compiled", "Nvrtc", "driver_version", "find_nvrtc"]

_SUCCESS = 0


@dataclass(frozen=True)
class Nvrtc:
    """A loaded compiler.

    Attributes:
        library: The shared library.
        path: Where it was found.
        version: Of CUDA, such as (13, 0). A driver loads PTX of its own version and older ones.
    """

    library: ctypes.CDLL
    path: str
    version: tuple[int, int]

    def compile(
        self,
        source: str,
        architecture: str,
        defines: Mapping[str, str],
        headers: Mapping[str, str],
        options: Sequence[str] = (),
    ) -> Compiled:
        """Compile a translation unit.

        Args:
            source: CUDA C++.
            architecture: ``compute_90`` for PTX, ``sm_90`` for machine code.
            defines: Macros.
            headers: Files that the source may include, by name.
            options: More of NVRTC's options.

        Raises:
            PluginError: If it does not compile, with the compiler's first error.
        """
        program = ctypes.c_void_p()
        self._check(
            self.library.nvrtcCreateProgram(
                ctypes.byref(program),
                source.encode(),
                b"kernel.cu",
                len(headers),
                _strings(headers.values()),
                _strings(headers),
            )
        )
        try:
            return self._run(program, architecture, defines, options)
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _run(
        self,
        program: ctypes.c_void_p,
        architecture: str,
        defines: Mapping[str, str],
        options: Sequence[str],
    ) -> Compiled:
        arguments = [
            f"--gpu-architecture={architecture}",
            "--std=c++17",
            "--device-as-default-execution-space",  # closures cannot say where they run
            "--fmad=false",  # products and sums are fused where the source says so
            *(f"-D{name}={value}" for name, value in defines.items()),
            *options,
        ]
        status = self.library.nvrtcCompileProgram(program, len(arguments), _strings(arguments))
        log = self._text(program, "ProgramLog").decode(errors="replace")
        if status != _SUCCESS:
            error = next((line for line in log.splitlines() if "error" in line), log.strip())
            raise PluginError(
                f"NVRTC {self._dotted()} does not compile the kernels for {architecture}: {error}",
                hint="the architecture may be newer than this NVRTC, or older than sm_80",
            )
        kind = "PTX" if architecture.startswith("compute_") else "CUBIN"
        return Compiled(self._text(program, kind), log)

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw if what == "CUBIN" else buffer.raw.rstrip(b"\0")

    def _check(self, status: int) -> None:
        if status != _SUCCESS:
            explain = self.library.nvrtcGetErrorString
            explain.restype = ctypes.c_char_p
            raise PluginError(f"NVRTC {self._dotted()} failed: {explain(status).decode()}")

    def _dotted(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True)
class Compiled:
    """What a compiler gave: PTX or machine code, and what it said."""

    code: bytes
    log: str


def find_nvrtc(newest: tuple[int, int] | None = None, folders: Sequence[Path] = ()) -> Nvrtc | None:
    """The newest NVRTC of this machine that is not newer than ``newest``, a CUDA version.

    Looked for in NVIDIA's Python packages, in ``CUDA_HOME``, where the system's libraries are, and
    in packages installed into ``folders``.
    """
    found = [compiler for path in _candidates(folders) if (compiler := _load(path)) is not None]
    fitting = [each for each in found if newest is None or each.version <= newest]
    return max(fitting, key=lambda each: each.version, default=None)


def driver_version() -> tuple[int, int] | None:
    """The CUDA version of this machine's driver; None without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)) != _SUCCESS:
        return None
    return version.value // 1000, version.value % 1000 // 10


def _candidates(folders: Sequence[Path]) -> Iterator[str]:
    package = importlib.util.find_spec("nvidia")
    installed = (package.submodule_search_locations or []) if package else []
    for folder in [*map(Path, installed), *(folder / "nvidia" for folder in folders)]:
        yield from _libraries(folder.glob("*/lib/libnvrtc.so.*"))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            yield from _libraries(Path(os.environ[variable]).glob("lib64/libnvrtc.so.*"))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12")


def _libraries(paths: Iterator[Path]) -> list[str]:
    return sorted(str(path) for path in paths if re.search(r"\.so\.\d+$", path.name))


def _load(path: str) -> Nvrtc | None:
    try:
        # It opens this second library by its bare name, which a loaded one answers to.
        for builtins in sorted(Path(path).parent.glob("libnvrtc-builtins.so.*")):
            ctypes.CDLL(str(builtins))
        library = ctypes.CDLL(path)
        major, minor = ctypes.c_int(), ctypes.c_int()
        status = library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    except (OSError, AttributeError):
        return None
    return Nvrtc(library, path, (major.value, minor.value)) if status == _SUCCESS else None


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)
