"""The door people know; everything happens in musicrec.cli.import_interactions."""

from musicrec.cli.import_interactions import main

if __name__ == "__main__":
    main()
