"""A listening world made up from a seed, whose best possible recommendation is known."""

from musicrec.sources.synthetic.world import SyntheticWorld

__all__ = ["SyntheticWorld"]
