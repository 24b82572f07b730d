"""Too few users for the components: the page and the JSON hold no NaN, and what is shown says what it is of."""

import json
import re

import pandas as pd
import pytest

from spectral_probe.cli.json_output import chosen, print_json
from spectral_probe.errors import ConfigError
from spectral_probe.profiles.tables import tau_of
from tests.spectral_probe.worlds import run_probe


def refuse(name):
    raise AssertionError(f"JSON has no {name}")


def test_a_run_of_few_users_writes_no_nan(tmp_path, monkeypatch, capsys):
    words = ["analyze", "-m", "tiny-random:qwen2", "-d", "demo", "--users", "15", "--n-pseudo", "2", "--json"]
    code, text, err = run_probe([*words, "--out", str(tmp_path)], monkeypatch, capsys)
    assert code == 0, err
    assert json.loads(text, parse_constant=refuse)
    page = (next(tmp_path.iterdir()) / "report.html").read_text(encoding="utf-8")
    blocks = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.S)
    assert blocks
    for block in blocks:
        json.loads(block, parse_constant=refuse)


def test_print_json_replaces_what_json_lacks(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1.0], "c": (2, {"d": float("nan")})})
    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"a": None, "b": [None, 1.0], "c": [2, {"d": None}]}


def test_an_unknown_field_is_answered_with_names_that_have_a_dot():
    with pytest.raises(ConfigError, match=r"the result has qwen2\.5-7b\."):
        chosen({"qwen2.5-7b": {"n_users": 3}}, ["n_users"])
    assert chosen({"qwen2.5-7b": {"n_users": 3}}, ["qwen2.5-7b.n_users"]) == {"qwen2.5-7b.n_users": 3}


def test_the_diffusion_time_is_that_of_the_rows():
    assert tau_of(pd.DataFrame({"tau": [2.0, 2.0]})) == "τ = 2"
    assert tau_of(pd.DataFrame({"tau": [5.0, 1.0, None]})) == "τ = 1, 5"
