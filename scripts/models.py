"""The door people know; everything happens in musicrec.cli.models."""

from musicrec.cli.models import main

if __name__ == "__main__":
    main()
