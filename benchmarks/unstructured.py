"""From what sparsity on a product of scattered zeros is faster: torch's CSR against dense.

On a GPU the same is asked of cuSPARSE by

    python -m benchmarks.unstructured --device cuda

which was not run by us.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.measure import interleaved, ratio
from benchmarks.rows import Row

__all__ = ["run"]

ZEROS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def run(*, quick: bool) -> list[Row]:
    """A matrix of 4,096 x 1,024 and 1 or 64 columns."""
    sizes = (512, 256) if quick else (4096, 1024)
    rows: list[Row] = []
    for columns in (1, 64):
        crossed = None
        for zeros in ZEROS:
            found = _times(sizes, columns, zeros, "cpu", 9 if quick else 41)
            share = ratio(found["csr"], found["dense"])
            title = f"{sizes[0]} x {sizes[1]}, {columns} columns, {zeros:.0%} zeros"
            rows.append(Row.of(f"{title}: CSR / dense", share))
            if crossed is None and share.median < 1:
                crossed = zeros
        title = f"{sizes[0]} x {sizes[1]}, {columns} columns: first share at which CSR is faster"
        rows.append(Row(title, 1.0 if crossed is None else crossed, ""))
    rows += [
        Row(
            f"{zeros:.0%} zeros: bytes of CSR / dense, float32, 32-bit indices",
            2 * (1 - zeros),
            "x",
        )
        for zeros in (0.5, 0.9)
    ]
    return rows


@torch.inference_mode()
def _times(
    sizes: tuple[int, int], columns: int, zeros: float, device: str, repeats: int
) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(sizes, generator=generator)
    dense *= torch.rand(sizes, generator=generator) >= zeros
    x = torch.randn(sizes[1], columns, generator=generator).to(device)
    csr, dense = dense.to_sparse_csr().to(device), dense.to(device)
    torch.testing.assert_close(csr @ x, dense @ x, rtol=1e-3, atol=1e-3)
    calls = {"dense": _call(dense, x), "csr": _call(csr, x)}
    return interleaved(calls, repeats, warmup=3)


def _call(matrix: torch.Tensor, x: torch.Tensor) -> Callable[[], None]:
    def call() -> None:
        matrix @ x
        if x.is_cuda:
            torch.cuda.synchronize()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description="Sparse against dense products on a device.")
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    start = time.perf_counter()
    for columns in (1, 64, 1024):
        for zeros in ZEROS:
            found = _times((4096, 4096), columns, zeros, device, 41)
            medians = {name: statistics.median(each) * 1e3 for name, each in found.items()}
            print(f"{columns} columns, {zeros:.0%} zeros: " + str(medians))
    print(f"{time.perf_counter() - start:.0f} s on {device}")


if __name__ == "__main__":
    main()
