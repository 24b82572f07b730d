"""Every model, through the commands, on two small data sets of reviews with titles."""

import json
import sys

import pandas as pd
import pytest

from frellm4rec.cli import main as recommender
from frellm4rec.models.registry import model_class, model_names
from spectral_probe.cli import main as instrument
from spectral_probe.plugins.datasets import resolve_dataset

pytestmark = [pytest.mark.slow, pytest.mark.shared]


def run(module, arguments, monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        module.main()
    printed = capsys.readouterr()
    assert not stop.value.code, (arguments, printed.err[-500:])
    return printed.out


@pytest.fixture(scope="module")
def industrial(shared_dir, tmp_path_factory):
    """Write the log as a table with titles."""
    folder = shared_dir / "data" / "Industrial_and_Scientific"
    lines = (folder / "derived_Industrial_and_Scientific.txt").read_text().splitlines()
    rows = [(line.split()[0], int(item), t) for line in lines for t, item in enumerate(line.split()[1:])]
    titles = pd.read_csv(folder / "derived_Industrial_and_Scientific_id2title.tsv", sep="\t", usecols=[0, 1])
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).merge(titles, on="item_id", how="left")
    path = tmp_path_factory.mktemp("industrial") / "industrial.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(params=["Gift_Cards", "Industrial_and_Scientific"])
def data(request, shared_dir):
    if request.param == "Gift_Cards":
        return ["amazon:Gift_Cards", "--from-dir", shared_dir / "data" / "Gift_Cards"]
    return [request.getfixturevalue("industrial")]


@pytest.mark.parametrize("model", model_names())
def test_every_command_takes_every_model(model, data, tmp_path, monkeypatch, capsys):
    def frellm4rec(*arguments):
        return run(recommender, arguments, monkeypatch, capsys)

    traits = model_class(model).traits
    settings = ["--set", "training.n_epochs=1"] if traits.is_trained else []
    frellm4rec("train", "--model", model, "--dataset", *data, "--out", tmp_path / "runs", *settings)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert len(json.loads(frellm4rec("evaluate", folder, "--ranking", "full", "--json"))) > 0
    dataset = resolve_dataset(str(data[0]), *data[2:])
    assert len(frellm4rec("recommend", folder, "--user", dataset.user_ids[0], "--k", "3").splitlines()) >= 3
    if traits.is_inner_product:
        frellm4rec("export", folder, "--out", tmp_path / "items.csv")
        assert len(pd.read_csv(tmp_path / "items.csv")) == dataset.n_items
    if not traits.why_no_layers:
        out = tmp_path / "probed"
        run(instrument, ["analyze", "--model", folder, "--dataset", *data, "--out", out], monkeypatch, capsys)
        assert list(out.glob("*/report.html"))
