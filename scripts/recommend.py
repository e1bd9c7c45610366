"""The door people know; everything happens in musicrec.cli.recommend."""

from musicrec.cli.recommend import main

if __name__ == "__main__":
    main()
