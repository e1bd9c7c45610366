"""The door people know; everything happens in musicrec.cli.schedule."""

from musicrec.cli.schedule import main

if __name__ == "__main__":
    main()
