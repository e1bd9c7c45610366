"""The door people know; everything happens in musicrec.cli.train."""

from musicrec.cli.train import main

if __name__ == "__main__":
    main()
