"""The door people know; everything happens in musicrec.cli.show_graph."""

from musicrec.cli.show_graph import main

if __name__ == "__main__":
    main()
