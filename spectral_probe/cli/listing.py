"""``spectral-probe models`` and ``spectral-probe datasets``: what has a short name."""

from __future__ import annotations

from spectral_probe.cli.flags import examples
from spectral_probe.cli.json_output import AsJson, Fields
from spectral_probe.cli.tables import print_records

MODEL_EXAMPLES = examples(
    "spectral-probe models", "spectral-probe models --json", "spectral-probe models --fields name,kind"
)
DATASET_EXAMPLES = examples(
    "spectral-probe datasets", "spectral-probe datasets --json", "spectral-probe datasets --fields name"
)


def models(as_json: AsJson = False, fields: Fields = None) -> None:
    """List the models that have a short name."""
    from spectral_probe.backbones.aliases import known_aliases
    from spectral_probe.plugins.registry import plugin_names

    rows = [
        {"name": name, "kind": "plug-in", "stands for": "trained on the data set"} for name in plugin_names("models")
    ]
    rows += [{"name": n, "kind": a.kind, "stands for": a.target, "note": a.text} for n, a in known_aliases().items()]
    print_records(rows, as_json, fields, least=("kind",))


def datasets(as_json: AsJson = False, fields: Fields = None) -> None:
    """List the data sets that installed packages offer; a file with interactions is fine too."""
    from spectral_probe.plugins.registry import load_plugin, plugin_names

    rows = []
    for name in plugin_names("datasets"):
        text = (load_plugin("datasets", name).__doc__ or "").strip().partition("\n")[0].removeprefix("Return ")
        rows.append({"name": name, "what it is": text[:1].upper() + text[1:]})
    print_records(rows, as_json, fields)
