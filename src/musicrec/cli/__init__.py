"""The commands. Hydra lives here; below, functions take what they need by name."""

import os

# A second thread that spins while it waits takes its core from Postgres and from other runs:
# beside one busy process torch fell to a fifth of its speed. It must be said before torch loads,
# so it stands here, where every command passes first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
