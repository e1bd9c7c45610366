"""The door people know; everything happens in musicrec.cli.recommend_all."""

from musicrec.cli.recommend_all import main

if __name__ == "__main__":
    main()
