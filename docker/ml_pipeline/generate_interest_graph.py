"""``python generate_interest_graph.py --all-users`` on the container's dataset.

See musicrec.cli.generate_graph.
"""

import os
import sys

from musicrec.cli.generate_graph import main

if __name__ == "__main__":
    if not any(word.startswith("dataset=") for word in sys.argv[1:]):
        sys.argv.append(f"dataset={os.environ['MUSICREC_DATASET']}")
    main()
