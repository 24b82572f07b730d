"""The options of an analysis as its run folder holds them."""

from __future__ import annotations

from typing import Any

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.storage.reading import check_shape

#: What ``config.yaml`` of an analysis must hold beside options.
_CONFIG = {"model": str, "revision": (str, None), "dataset": str, "inputs": str, "options": {}}
_WHOLE, _NUMBER, _SWITCH, _NAMES = (int, None), (float, None), (bool, None), ([str], str, None)
#: Options that are not text; those of other versions are left to :class:`AnalysisOptions`.
_OPTIONS = {
    **dict.fromkeys(("max_length?", "users?", "n_pseudo?", "min_targets?", "batch_size?", "seed?"), _WHOLE),
    **dict.fromkeys(("n_bootstrap?", "n_references?"), _WHOLE),
    **dict.fromkeys(("tau?", "whole_tau?"), _NUMBER),
    **dict.fromkeys(("trust_remote_code?", "allow_pickle?"), _SWITCH),
    **dict.fromkeys(("controls?", "layers?"), _NAMES),
    "prefixes?": (bool, str, None),
    "bands?": (int, str),
}


def saved_config(run: AnalysisRun) -> dict[str, Any]:
    """Return ``config.yaml`` of an analysis, with options that can be read.

    Raises
    ------
    DataError
        If the file is damaged, lacks a key, or has an option of another type or with a value that is not allowed.
    """
    config = run.read_config(_CONFIG)
    options = config["options"]
    text = {f"{name}?": (str, None) for name in AnalysisOptions.__dataclass_fields__ if f"{name}?" not in _OPTIONS}
    try:
        check_shape(options, {**text, **_OPTIONS}, "options")
        AnalysisOptions.from_saved(dict(options))
    except (ConfigError, ValueError, KeyError) as error:
        raise DataError(
            f"{run.path / 'config.yaml'} is not that of an analysis: {str(error).rstrip('.')}. Restore the file, "
            "or run the analysis again."
        ) from error
    return config
