"""The door people know; everything happens in musicrec.cli.feature_store.

Not ``feast.py``: Python would take that for Feast itself, in every script of this folder.
"""

from musicrec.cli.feature_store import main

if __name__ == "__main__":
    main()
