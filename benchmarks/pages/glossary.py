"""Write ``docs/glossary.md`` from the glossary of the program: ``python -m benchmarks.pages.glossary``."""

from __future__ import annotations

from pathlib import Path

from spectral_probe.report.glossary import glossary_page
from spectral_probe.storage.atomic import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"

if __name__ == "__main__":
    write_text(PAGE, glossary_page().rstrip("\n"))
