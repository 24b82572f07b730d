"""Run the notebooks in full and store what they show: ``python -m benchmarks.pages.notebooks [NAME …]``.

What needs a kernel is not stored: bars, sliders, and the library of an interactive chart, which is in every output that
has one. Pictures and pages of the same outputs are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from spectral_probe.storage.atomic import write_text

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
#: Characters of the largest page that is stored; an interactive chart with its library has a million.
MOST = 500_000


def stored_outputs(outputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a cell without what needs a kernel, and without messages to stderr."""
    stored = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        data = output.get("data", {})
        is_widget = data.pop(WIDGET, None) is not None
        if len(data.get("text/html", "")) > MOST:
            del data["text/html"]
        if not is_widget or set(data) - {"text/plain"}:
            stored.append(output)
    return stored


def run(name: str) -> None:
    """Run one notebook and store its outputs."""
    path = FOLDER / name
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(FOLDER)}}).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = stored_outputs(cell.outputs)
    write_text(path, nbformat.writes(notebook) + "\n")


def main(names: Sequence[str]) -> None:
    """Run the named notebooks, or all."""
    for name in names or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        print(name, flush=True)
        run(name)


if __name__ == "__main__":
    main(sys.argv[1:])
