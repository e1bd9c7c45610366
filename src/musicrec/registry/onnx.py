"""``model.onnx``: the encoder of a bundle for runtimes without torch, and its vocabulary beside it.

One input and two outputs::

    items    (batch, length) int64       item indices, oldest first, left-padded with 0
    scores   (batch, catalogue_size + 1) of every item as the next one; padding scores -inf
    hidden   (batch, dim)                what the scores were made from

Both axes of the input are free, ``length`` up to ``max_length``. Everything that a torch bundle
adds to scores (repeats, transitions) is in them; the ranker is not, and nobody's listening. What
item indices mean stands in ``model.vocabulary.json``; both files bear the bundle's version.

Only ``export`` needs torch's exporter and ``onnxscript``; ``check`` needs ``onnxruntime``.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from musicrec.errors import BundleError
from musicrec.models.padded import PaddedSASRec
from musicrec.registry.bundle import Bundle
from musicrec.registry.whole import whole_file

if TYPE_CHECKING:
    import onnxruntime

FORMAT = "musicrec-onnx-1"

#: Protobuf's own, of one message, less what a graph takes.
MOST_BYTES = 2**31 - 2**24

#: Between the scores of the two runtimes, as a share of the largest: float32 sums in another order.
TOLERANCE = 1e-4

_SEED = 17


@dataclass(frozen=True, slots=True)
class Parity:
    """How the file's scores compare with torch's.

    Attributes:
        histories: compared, of 1 to ``max_length`` random items.
        largest_difference: between two scores of the same item.
        same_top: histories whose best ten are the same in the same order.
    """

    histories: int
    largest_difference: float
    same_top: int


@dataclass(frozen=True, slots=True)
class Exported:
    """Two files that belong together."""

    path: Path
    vocabulary: Path
    parity: Parity


def export(bundle: Bundle, path: Path, *, histories: int = 64) -> Exported:
    """Write ``path`` and its vocabulary, once its scores are those of torch.

    Args:
        bundle: what is written.
        path: of the ONNX file; the vocabulary lies beside it.
        histories: how many random ones to compare; at least 1.

    Raises:
        BundleError: the model is too large for one ONNX file, or the file that was made answers
            otherwise than torch. Nothing is left behind, and what stood there stays.
        ImportError: the extra ``export`` is not installed.
    """
    import onnx

    twin = PaddedSASRec(bundle.model).eval()
    _check_size(twin, path)
    vocabulary = path.with_suffix(".vocabulary.json")
    model = _traced(twin, bundle.model.max_length)
    _describe(model, bundle, vocabulary)
    with whole_file(path) as file:
        onnx.save_model(model, file)
        file.flush()
        parity = check(bundle, Path(file.name), histories)
        with whole_file(vocabulary) as names:
            names.write(json.dumps(_vocabulary(bundle), ensure_ascii=False).encode())
    return Exported(path, vocabulary, parity)


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it raises what it logs
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check(bundle: Bundle, path: Path, histories: int) -> Parity:
    """Compare a file's scores with torch's, of random histories one by one and in batches.

    Raises:
        BundleError: they differ by more than rounding does.
    """
    session = open_session(path)
    largest, same_top = 0.0, 0
    batches = _histories(len(bundle.catalogue), bundle.model.max_length, histories)
    for items in batches:
        with torch.inference_mode():
            expected = bundle.model(torch.from_numpy(items)).numpy()[:, 1:]
        scores = session.run(["scores"], {"items": items})[0][:, 1:]
        difference = float(np.abs(scores - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise BundleError(
                f"{path.name}: its scores differ from torch's by {difference:.3g}, which is more "
                "than rounding; nothing was written, please report this with the versions of "
                "torch, onnxscript and onnxruntime"
            )
        largest = max(largest, difference)
        same_top += int((_best(scores) == _best(expected)).all(axis=1).sum())
    return Parity(histories, largest, same_top)


def _check_size(twin: PaddedSASRec, path: Path) -> None:
    tensors = [*twin.parameters(), *twin.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > MOST_BYTES:
        raise BundleError(
            f"{path}: an ONNX file holds less than 2 GiB and this model has {size / 2**30:.2f}; "
            "train one with a smaller model.dim or model.transitions"
        )


def _traced(twin: PaddedSASRec, max_length: int) -> Any:
    """The twin as an ``onnx.ModelProto``."""
    from torch.export import Dim

    # An example of two axes longer than 1, or they would be taken for constants.
    example = torch.ones(2, min(2, max_length), dtype=torch.int64)
    length = {1: Dim("length", min=1, max=max_length)} if max_length > 1 else {}
    with _quiet():
        program = torch.onnx.export(
            twin,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["items"],
            output_names=["scores", "hidden"],
            dynamic_shapes={"items": {0: Dim("batch", min=1), **length}},
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say to their own developers, such as every constant they fold."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _describe(model: Any, bundle: Bundle, vocabulary: Path) -> None:
    """Say in the file's own metadata what it is and what belongs to it."""
    from onnx import helper

    facts = {
        "format": FORMAT,
        "model_version": bundle.version,
        "vocabulary": vocabulary.name,
        "catalogue_size": len(bundle.catalogue),
        "max_length": bundle.model.max_length,
        "seen": bundle.seen,
        "data_fingerprint": bundle.data_fingerprint,
        "commit": bundle.commit,
        "created_at": bundle.created_at,
    }
    helper.set_model_props(model, {key: str(value) for key, value in facts.items()})
    model.producer_name = "musicrec"
    model.doc_string = (
        "SASRec: scores of every item as the next one of left-padded histories (0 is padding, the "
        "newest item stands in the last column)"
    )


def _vocabulary(bundle: Bundle) -> dict[str, Any]:
    """Lists by item index; the first is padding's, null."""
    catalogue = bundle.catalogue
    return {
        "format": FORMAT,
        "model_version": bundle.version,
        "track_ids": [None, *catalogue.track_ids],
        "titles": [None, *catalogue.titles],
        "artists": [None, *catalogue.artists],
    }


def _histories(catalogue_size: int, max_length: int, count: int) -> list[NDArray[np.int64]]:
    """Left-padded batches of 1, 2, 4, 8, 16, 16 … random histories, as long as they come.

    Each draws from a few items, so that it has repeats; the first two are of one item and full.
    """
    random = np.random.default_rng(_SEED)
    lengths = random.integers(1, max_length, size=count, endpoint=True)
    lengths[:2] = [1, max_length][:count]
    batches, done, size = [], 0, 1
    while done < count:
        some = lengths[done : done + size]
        width = int(some.max())
        items = np.zeros((len(some), width), dtype=np.int64)
        for row, length in enumerate(some.tolist()):
            pool = random.integers(1, catalogue_size, size=-(-length // 2), endpoint=True)
            items[row, width - length :] = random.choice(pool, size=length)
        batches.append(items)
        done, size = done + size, min(2 * size, 16)
    return batches


def _best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """``(batch, 10)`` places of the best, equals by place; fewer in a smaller catalogue."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :10]
