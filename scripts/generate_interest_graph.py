"""The door people know; everything happens in musicrec.cli.generate_graph."""

from musicrec.cli.generate_graph import main

if __name__ == "__main__":
    main()
