"""Notebooks are visitors: they run by themselves, and are committed without what they said."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each_notebook
def test_a_notebook_is_committed_without_output(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert not cell.outputs
        assert cell.execution_count is None


@each_notebook
def test_a_notebook_defines_nothing_that_another_file_could_need(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        lines = cell.source.splitlines()
        assert not [line for line in lines if line.startswith(("def ", "class ", "%", "!"))]


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_from_top_to_bottom(postgres, path, tmp_path):
    # Elsewhere than beside the notebook, so that what it writes is not left in the checkout.
    working_folder = {"metadata": {"path": str(tmp_path)}}
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, resources=working_folder).execute()
    assert code_cells(notebook)[-1].outputs
