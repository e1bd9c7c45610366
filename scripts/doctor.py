"""The door people know; everything happens in musicrec.cli.doctor."""

from musicrec.cli.doctor.command import main

if __name__ == "__main__":
    main()
