"""The door people know; everything happens in musicrec.cli.retrain."""

from musicrec.cli.retrain import main

if __name__ == "__main__":
    main()
