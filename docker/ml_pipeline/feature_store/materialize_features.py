"""``python feature_store/materialize_features.py --all`` on the container's dataset.

See musicrec.cli.materialize.
"""

import os
import sys

from musicrec.cli.materialize import main

if __name__ == "__main__":
    if not any(word.startswith("dataset=") for word in sys.argv[1:]):
        sys.argv.append(f"dataset={os.environ['MUSICREC_DATASET']}")
    main()
