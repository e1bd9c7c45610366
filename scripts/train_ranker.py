"""The door people know; everything happens in musicrec.cli.train_ranker."""

from musicrec.cli.train_ranker import main

if __name__ == "__main__":
    main()
