"""musicrec: listening histories in, measured recommendations out.

``musicrec.Recommender`` answers from a trained bundle; everything else is imported from its room,
such as ``from musicrec.models.sasrec import SASRec``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Recommender", "__version__"]

if TYPE_CHECKING:
    from musicrec.serving.recommender import Recommender


def __getattr__(name: str) -> Any:
    # Lazily, so that importing a room does not load torch for those who do not need it.
    if name == "Recommender":
        from musicrec.serving.recommender import Recommender

        return Recommender
    raise AttributeError(f"module 'musicrec' has no attribute {name!r}")
