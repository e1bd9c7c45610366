"""``python -m musicrec VERB …``, for where the command ``musicrec`` is on no path."""

from musicrec.cli.console import main

if __name__ == "__main__":
    main()
