"""``spectral-probe models`` and ``spectral-probe datasets``: what has a short name."""

from __future__ import annotations

from typing import Annotated

import typer

from spectral_probe.cli.tables import print_records


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the models that have a short name."""
    from spectral_probe.backbones.aliases import known_aliases
    from spectral_probe.plugins.registry import plugin_names

    rows = [
        {"name": name, "kind": "plug-in", "stands for": "trained on the data set"} for name in plugin_names("models")
    ]
    rows += [{"name": n, "kind": a.kind, "stands for": a.target, "note": a.text} for n, a in known_aliases().items()]
    print_records(rows, as_json)


def datasets(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the data sets that installed packages offer; a file with interactions is fine too."""
    from spectral_probe.plugins.registry import load_plugin, plugin_names

    rows = []
    for name in plugin_names("datasets"):
        text = (load_plugin("datasets", name).__doc__ or "").strip().partition("\n")[0]
        rows.append({"name": name, "what it is": text})
    print_records(rows, as_json)
