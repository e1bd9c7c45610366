"""``python train_transformer.py --epochs 10 …`` in the container; see musicrec.cli.train.

What the command line leaves open, the container decides: its dataset (the synthetic world makes
its own), and MLflow besides TensorBoard where a server is named.
"""

import os
import sys

from musicrec.cli.train import main


def is_told(*keys: str) -> bool:
    return any(word.partition("=")[0] in keys for word in sys.argv[1:])


if __name__ == "__main__":
    dataset = os.environ["MUSICREC_DATASET"]
    if dataset != "synthetic" and not is_told("data", "dataset", "experiment"):
        sys.argv += ["data=postgres", f"dataset={dataset}"]
    if os.environ.get("MLFLOW_TRACKING_URI") and not is_told("tracking"):
        sys.argv.append("tracking=mlflow")
    main()
