"""What the documents show is run as it stands there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_plug_in_of_the_guide_runs_and_is_about_forty_lines(capsys) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 45
    exec(compile(code, "plugins.md", "exec"), {"__name__": "guide"})
    assert capsys.readouterr().out.strip()


def test_every_function_and_test_of_the_paper_map_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = re.findall(r"`((?:spectral_probe|frellm4rec)\.[\w.]+)` \| `(test_\w+)`", _read("docs/paper_map.md"))
    assert len(rows) >= 15
    for name, test in rows:
        assert f"def {test}(" in sources, test
        assert _exists(name), name


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _exists(dotted: str) -> bool:
    """Tell whether a dotted name leads to something: the longest importable module, then attributes."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False
