"""The door people know; everything happens in musicrec.cli.materialize."""

from musicrec.cli.materialize import main

if __name__ == "__main__":
    main()
