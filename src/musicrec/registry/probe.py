"""Whether a model that was opened answers as one must.

A checksum says that a file is as it was written; not that what was written is any good: a training
that diverged leaves a whole file of NaN.
"""

from __future__ import annotations

import torch

from musicrec.errors import BundleError
from musicrec.registry.bundle import Bundle

#: Histories asked about, of each length.
_LISTENERS = 4


@torch.inference_mode()
def probe(bundle: Bundle) -> None:
    """Ask a model about made-up listeners.

    Args:
        bundle: opened, its checksum seen to.

    Raises:
        BundleError: there is nothing to recommend, or an answer is not finite or says nothing.
    """
    num_items, model = len(bundle.catalogue), bundle.model
    if not num_items:
        raise BundleError("its catalogue is empty")
    if model.catalogue_size != num_items:
        raise BundleError(
            f"its model scores {model.catalogue_size} tracks, and it names {num_items}"
        )
    # Asked once, it is quick from then on: no request waits for the index of a million ids.
    _, unknown = bundle.catalogue.indices([bundle.catalogue.track_ids[0]])
    if unknown:
        raise BundleError(f"it does not know its own track {unknown[0]!r}")
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise BundleError(f"{name} holds weights that are not finite")
    table, draw = model.output_table(), torch.Generator().manual_seed(0)
    for length in sorted({1, min(2, model.max_length), model.max_length}):
        items = torch.randint(1, num_items + 1, (_LISTENERS, length), generator=draw)
        items[0, -1], items[-1, -1] = 1, num_items
        known = model.encode_last(items.flatten(), torch.full((_LISTENERS,), length))
        scores = model.scores(known, table)[:, 1:]
        if not scores.isfinite().all():
            raise BundleError(f"it scores after {length} plays with what is not finite")
        if num_items > 1 and (scores == scores[:, :1]).all():
            raise BundleError(f"it scores all tracks alike after {length} plays")
