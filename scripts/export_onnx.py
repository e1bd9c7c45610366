"""The door people know; everything happens in musicrec.cli.export_onnx."""

from musicrec.cli.export_onnx import main

if __name__ == "__main__":
    main()
