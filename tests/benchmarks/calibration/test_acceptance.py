import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration.acceptance import failures

GOOD = {
    "null": {"world": "noise", "draws": 40, "mean_z": 0.3, "sd_z": 1.0, "exchanged_sd": np.nan, "false_verdicts": 0.05},
    "taste": {"world": "nothing changes", "draws": 200, "false_verdicts": 0.0, "coverage": 0.95},
}


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("null", {}, []),
        ("taste", {}, []),
        ("null", {"mean_z": -1.4}, [("mean z -1.4", True)]),
        ("null", {"mean_z": 4.3}, [("mean z +4.3", False)]),
        ("null", {"sd_z": 0.8}, [("sd of z 0.80", True)]),
        ("null", {"sd_z": 2.0}, [("sd of z 2.00", False)]),
        ("null", {"sd_z": 1.6, "exchanged_sd": 1.5}, []),
        ("null", {"false_verdicts": 0.075}, [("false verdicts 7.5 %", True)]),
        ("null", {"false_verdicts": 0.5}, [("false verdicts 50.0 %", False)]),
        ("taste", {"coverage": 0.92}, [("coverage 92.0 %", True)]),
        ("taste", {"coverage": 0.8}, [("coverage 80.0 %", False)]),
        ("taste", {"coverage": 1.0}, [("coverage 100.0 %", False)]),
        ("taste", {"coverage": 1.0, "draws": 40}, [("coverage 100.0 %", True)]),
        ("taste", {"coverage": np.nan}, []),
    ],
)
def test_a_missed_limit_is_named_with_its_number(kind, changes, expected) -> None:
    found = failures(pd.Series({**GOOD[kind], **changes}))
    assert [(f.text, f.is_chance) for f in found] == expected
