"""How files are read: stored bytes, lines, rows, columns, listens; every format builds on it."""
