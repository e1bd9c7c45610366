"""The door people know; everything happens in musicrec.cli.upload_run."""

from musicrec.cli.upload_run import main

if __name__ == "__main__":
    main()
