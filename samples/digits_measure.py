"""What the demo measures: predictions, sizes and latency, in PyTorch and in ONNX Runtime."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from digits_train import MEMBERS
from safetensors.torch import load_file
from torch import nn

__all__ = [
    "export_member",
    "latency",
    "load_member",
    "one_by_one",
    "open_session",
    "predict",
    "size",
]

ROUNDS = 300


def load_member(name: str, folder: Path) -> nn.Module:
    """A trained member, from its safetensors file."""
    model = MEMBERS[name]()
    model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return model.eval()


def export_member(model: nn.Module, folder: Path) -> Path:
    """One member alone as ONNX, by PyTorch's own exporter, to time it beside the fused graph."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter warns of is its own code
        torch.onnx.export(
            model,
            (torch.zeros(2, 1, 8, 8),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=20,
            external_data=False,
            verbose=False,
        )
    return path


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A session on one thread: graphs this small are slower on two."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, image: np.ndarray, batch: int) -> np.ndarray:
    """The predicted digit of each image, [n], run in batches of the size that was exported for."""
    parts = [image[start : start + batch] for start in range(0, len(image), batch)]
    logits = [session.run(None, {"image": part})[0] for part in parts]
    return np.concatenate(logits).argmax(axis=-1)


def latency(
    sessions: Mapping[str, onnxruntime.InferenceSession], image: np.ndarray
) -> dict[str, list[float]]:
    """Milliseconds of each session's every run on ``image``.

    Rounds are interleaved, so that what else the machine does falls on all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for round_number in range(ROUNDS + 20):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {"image": image})
            if round_number >= 20:  # the first runs allocate
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def one_by_one(times: Mapping[str, list[float]]) -> float:
    """Median milliseconds of running all members one after the other."""
    return statistics.median(
        sum(run) for run in zip(*(times[name] for name in MEMBERS), strict=True)
    )


def size(path: Path) -> int:
    """Bytes of a file, with its external data where it has some."""
    data = path.with_name(path.name + ".data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)
