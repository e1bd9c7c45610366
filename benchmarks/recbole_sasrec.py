"""RecBole's SASRec with cross-entropy, on the yardstick's sizes.

    python benchmarks/recbole_sasrec.py train DATA --shape B --steps 8

Runs in an environment of its own (requirements-recbole.txt; ``compare.py`` makes it). RecBole
learns one target from each prefix of a history, so a batch of so many windows has as many targets,
where the other contestants have one at each token; and its blocks are post-norm.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from contestant import Clock, Shape, flags, report, shape_of
from listens import Listens, read


class Finished(Exception):
    """The clock has seen its steps."""


def write_interactions(listens: Listens, folder: Path) -> None:
    """RecBole's own format; the last two of who is asked are its validation and test."""
    users = np.repeat(np.arange(len(listens.lengths)), listens.lengths)
    rows = np.stack([users, listens.items, np.arange(len(users))], axis=1)
    (folder / "listens").mkdir()
    header = "user_id:token\titem_id:token\ttimestamp:float"
    file = folder / "listens" / "listens.inter"
    np.savetxt(file, rows, fmt="%d", delimiter="\t", header=header, comments="")


def settings(shape: Shape, folder: Path, device: str) -> dict[str, Any]:
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "mode": "full",
            "group_by": "user",
        },
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": shape.length,
        "n_layers": shape.blocks,
        "n_heads": shape.heads,
        "hidden_size": shape.dim,
        "inner_size": shape.dim,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2,
        "loss_type": "CE",
        "train_batch_size": shape.batch,
        "use_gpu": device != "cpu",
        "reproducibility": False,
    }


def train(listens: Listens, shape: Shape, clock: Clock, device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_interactions(listens, Path(folder))
        config = Config("SASRec", "listens", config_dict=settings(shape, Path(folder), device))
        init_seed(config["seed"], config["reproducibility"])
        train_data, *_ = data_preparation(config, create_dataset(config))
        model = get_model("SASRec")(config, train_data.dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)

        def count(*_: Any) -> None:
            if clock.step(shape.batch):
                raise Finished

        trainer.optimizer.register_step_post_hook(count)
        try:
            trainer.fit(train_data, saved=False, show_progress=True)
        except Finished:
            return


def main() -> None:
    options = flags(__doc__).parse_args()
    clock = Clock(options.warmup, options.steps)
    train(read(options.data), shape_of(options), clock, options.device)
    report(options, clock.result)


if __name__ == "__main__":
    main()
