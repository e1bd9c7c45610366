"""A training in a process of its own: ``python -m musicrec.cli.train_alone SETTING…``.

A module and no script, so that it is found in an installed package too, and Lightning's launcher
knows how to start the other processes of a training.
"""

from musicrec.cli.train import main

if __name__ == "__main__":
    main()
