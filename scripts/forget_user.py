"""The door people know; everything happens in musicrec.cli.forget_user."""

from musicrec.cli.forget_user import main

if __name__ == "__main__":
    main()
