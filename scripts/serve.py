"""The door people know; everything happens in musicrec.cli.serve."""

from musicrec.cli.serve import main

if __name__ == "__main__":
    main()
