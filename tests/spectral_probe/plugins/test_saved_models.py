"""Saved recommenders and training runs as models of the instrument."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from frellm4rec.models.popularity import Popularity as PopularityModel
from frellm4rec.models.registry import load_model
from frellm4rec.models.sasrec import SASRec, SASRecConfig
from frellm4rec.runs.trained import open_trained
from spectral_probe.analysis.cost import plan_analysis
from spectral_probe.analysis.model import resolve_model
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import analyze, run_analysis
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.errors import ConfigError, DataError, ModelError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.plugins import saved_models
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.plugins.saved_models import SavedModel, find_saved_model, trained_on
from spectral_probe.recording.capture import capture
from spectral_probe.runs.folder import RunFolder
from tests.spectral_probe.tiny_models import tiny
from tests.spectral_probe.worlds import make_world, run_probe

FAST = {"n_bootstrap": 100}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A file of interactions, as a user has one."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    histories = make_world(4, n_users=60).dataset.sequences
    rows = [(f"u{u}", f"i{item}", t) for u, history in enumerate(histories) for t, item in enumerate(history)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def dataset(log) -> Dataset:
    return resolve_dataset(str(log))


@pytest.fixture(scope="module")
def model(dataset) -> SASRec:
    return SASRec(SASRecConfig(n_items=dataset.n_items, n_features=8, n_inner=8), seed=2).eval()


def training_run(root, model: SASRec, data: Dataset, log, **request) -> RunFolder:
    run = RunFolder.create(root, kind="training", model=model.name, dataset=data.name, config={"recipe": str(request)})
    asked = {"model": model.name, "dataset": str(log), "from_dir": None, **request}
    run.write_state("finished", request=asked, dataset_fingerprint=data.fingerprint(titles=False))
    model.save_pretrained(run.path / "model")
    return run


@pytest.mark.parametrize("is_run", [False, True], ids=["saved model", "training run"])
def test_a_saved_folder_is_measured_like_the_model_that_was_saved(model, dataset, log, tmp_path, is_run) -> None:
    folder = training_run(tmp_path, model, dataset, log).path if is_run else model.save_pretrained(tmp_path / "kept")
    saved, given = analyze(str(folder), dataset, **FAST), analyze(model, dataset, **FAST)
    pd.testing.assert_frame_equal(saved.to_frame(), given.to_frame())
    assert set(saved.table["model"]) == {"sasrec"}
    other = SASRec(SASRecConfig(n_items=dataset.n_items, n_features=8, n_inner=8), seed=3)
    assert not np.allclose(analyze(other, dataset, **FAST).table["share"], saved.table["share"])


def test_a_named_training_run_is_called_after_its_name_and_saved_under_its_own(model, dataset, log, tmp_path) -> None:
    run = training_run(tmp_path, model, dataset, log, name="full")
    loaded = resolve_model(str(run.path), dataset, AnalysisOptions())
    assert loaded.name == "sasrec full"
    assert SASRec.name == "sasrec"
    again = loaded.save_pretrained(tmp_path / "again")
    assert json.loads((again / "config.json").read_text())["model"] == "sasrec"
    assert resolve_model(str(again), dataset, AnalysisOptions()).name == "sasrec"


def test_other_data_than_those_of_the_training_are_refused(model, dataset, log, tmp_path) -> None:
    run = training_run(tmp_path, model, dataset, log)
    backwards = [history[::-1] for history in dataset.sequences]
    other = Dataset.from_interactions(Interactions.from_sequences(backwards, n_items=dataset.n_items))
    assert other.n_items == dataset.n_items
    with pytest.raises(DataError, match="trained on other histories"):
        analyze(str(run.path), other, **FAST)
    with pytest.raises(DataError, match="trained on other histories"):
        plan_analysis(str(run.path), "demo", AnalysisOptions())
    folder = model.save_pretrained(tmp_path / "kept")
    smaller = make_world(4, n_users=60, n_items=30).dataset
    with pytest.raises(DataError, match=f"has {dataset.n_items} items, and this data set has {smaller.n_items}"):
        analyze(str(folder), smaller, **FAST)


def test_a_saved_model_is_probed_on_as_many_items_as_it_reads(dataset, log, tmp_path) -> None:
    longest = max(len(history) for history in dataset.sequences) - 2  # the last is no input, the test item no target
    for max_length in (longest, longest - 1):
        config = SASRecConfig(n_items=dataset.n_items, max_length=max_length, n_features=8, n_inner=8)
        folder = str(SASRec(config).save_pretrained(tmp_path / str(max_length)))
        if max_length == longest:
            assert plan_analysis(folder, str(log), AnalysisOptions())
            continue
        with pytest.raises(ConfigError, match=f"reads at most {max_length} items; got {longest}"):
            plan_analysis(folder, str(log), AnalysisOptions())


def test_a_kind_that_nobody_reads_is_an_error_with_the_next_step(tmp_path, dataset) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "sasrek"}))
    with pytest.raises(ModelError, match=r"'sasrek' model, which no installed package reads.*Did you mean 'sasrec'"):
        resolve_model(str(tmp_path), dataset, AnalysisOptions())
    with pytest.raises(ModelError, match="no installed package reads"):
        plan_analysis(str(tmp_path), "demo", AnalysisOptions())


def test_evaluation_and_probe_refuse_other_data_with_one_sentence(model, dataset, log, tmp_path) -> None:
    other = make_world(5, n_users=50, n_items=30).dataset
    for folder in (training_run(tmp_path, model, dataset, log).path, model.save_pretrained(tmp_path / "kept")):
        sentences = []
        for attempt in (
            lambda folder=folder: open_trained(folder, dataset="other", load=lambda *_: other),
            lambda folder=folder: analyze(str(folder), other, **FAST),
        ):
            with pytest.raises(DataError, match="trained on other histories") as refused:
                attempt()
            sentences.append(str(refused.value))
        assert sentences[0] == sentences[1]


def test_a_saved_model_knows_its_training(model, dataset, log, tmp_path) -> None:
    run = training_run(tmp_path, model, dataset, log, name="full")
    saved = SavedModel.open(run.path)
    assert (saved.model_folder, saved.name, saved.plugin) == (run.path / "model", "sasrec", "frellm4rec")
    assert (saved.run, saved.fingerprint, saved.n_items) == (run, dataset.fingerprint(titles=False), dataset.n_items)
    assert saved.named_data() == (str(log), None)
    saved.check_trained_on(dataset)
    alone = SavedModel.open(model.save_pretrained(tmp_path / "kept"))
    assert (alone.run, alone.request, alone.fingerprint, alone.named_data()) == (None, {}, None, None)
    alone.check_trained_on(dataset)


def test_a_config_names_the_plug_in_that_reads_it(model, dataset, tmp_path, monkeypatch) -> None:
    folder = model.save_pretrained(tmp_path / "kept")
    config = json.loads((folder / "config.json").read_text())
    values = {**config, "model": "new", "plugin": "readers"}
    (folder / "config.json").write_text(json.dumps(values))
    assert (SavedModel.open(folder).name, SavedModel.open(folder).plugin) == ("new", "readers")
    with pytest.raises(
        ModelError, match=r"names a 'new' model, to be read by the plug-in 'readers', which no installed"
    ):
        find_saved_model(str(folder)).load(dataset, "cpu")
    read = []
    give_plugin(monkeypatch, "readers", lambda folder, *, dataset, device: read.append(folder) or model)
    assert find_saved_model(str(folder)).load(dataset, "cpu") is model
    assert read == [folder]
    # A configuration with a field of Hugging Face is read by its plug-in too, if that is installed.
    (folder / "config.json").write_text(json.dumps({**values, "model_type": "bert"}))
    assert find_saved_model(str(folder)).plugin == "readers"
    (folder / "config.json").write_text(json.dumps({"plugin": "readers"}))
    with pytest.raises(ModelError, match="key 'model'"):
        find_saved_model(str(folder))


def give_plugin(monkeypatch, name, loader) -> None:
    """Offer one more reader of saved models."""
    names, load = saved_models.plugin_names, saved_models.load_plugin
    monkeypatch.setattr(saved_models, "plugin_names", lambda kind: [*names(kind), name])
    monkeypatch.setattr(
        saved_models, "load_plugin", lambda kind, wanted: loader if wanted == name else load(kind, wanted)
    )


class Popularity:
    """A recommender without layers."""

    name, is_causal, why_no_layers = "pop", True, "it counts interactions."

    def layers(self):
        return []


class Silent(Popularity):
    """One that gives no reason."""

    why_no_layers = ""

    def forward_sequences(self, inputs, lengths):
        raise AssertionError("no pass may be run")


SENTENCE = r"pop has no layers to probe: it counts interactions\. Probe a model that has layers"


def test_a_model_without_layers_is_refused_before_a_pass_is_run(dataset, tmp_path) -> None:
    with pytest.raises(ConfigError, match=SENTENCE):
        analyze(Popularity(), dataset, out=tmp_path / "runs", **FAST)
    with pytest.raises(ConfigError, match=SENTENCE):
        capture(Popularity(), np.zeros((1, 3), dtype=np.int64), [3])
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ModelError, match=r"layers\(\) of 'pop' is empty.*why_no_layers"):
        analyze(Silent(), dataset, **FAST)


def test_a_saved_model_without_layers_is_refused_with_exit_code_2(log, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text(json.dumps({"model": "pop"}))

    def loader(folder, *, dataset, device):
        return Popularity()

    loader.why_no_layers = lambda folder: Popularity.why_no_layers
    give_plugin(monkeypatch, "pop", loader)
    command = ["analyze", "--model", str(tmp_path / "saved"), "--dataset", str(log), "--out", str(tmp_path / "runs")]
    for arguments in (command, [*command, "--dry-run"]):
        code, _, err = run_probe(arguments, monkeypatch, capsys)
        assert code == 2, err
        assert re.search(SENTENCE, " ".join(err.split()))
    assert not (tmp_path / "runs").exists()


def test_our_models_without_layers_are_refused(model, dataset, tmp_path) -> None:
    folder = str(model.save_pretrained(tmp_path / "kept"))
    assert find_saved_model(folder).why_no_layers() == ""
    counted = PopularityModel(PopularityModel.config_class(n_items=dataset.n_items)).save_pretrained(tmp_path / "pop")
    for attempt in (
        lambda: plan_analysis(str(counted), "demo", AnalysisOptions()),
        lambda: analyze(str(counted), dataset, **FAST),
        lambda: analyze(load_model(counted), dataset, **FAST),
    ):
        with pytest.raises(ConfigError, match="popularity has no layers to probe: it counts users, and has no states"):
            attempt()


def test_a_folder_of_hugging_face_goes_the_old_way(tmp_path, dataset) -> None:
    folder = tmp_path / "decoder"
    tiny("qwen2").save_pretrained(folder)
    assert find_saved_model(str(folder)) is None
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "a field of its own"}))
    assert find_saved_model(str(folder)) is None
    assert type(resolve_model(str(folder), dataset, AnalysisOptions())).__name__ == "HFDecoder"


def test_a_short_name_stays_what_it_was_beside_a_folder_of_that_name(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sasrec", "minilm", "mine"):
        model.save_pretrained(tmp_path / name)
    assert find_saved_model("sasrec") is None
    assert find_saved_model("minilm") is None
    assert find_saved_model("mine").name == "sasrec"


@pytest.mark.parametrize("option", [{"inputs": "text"}, {"dtype": "bfloat16"}, {"adapter": "x"}, {"revision": "x"}])
def test_options_of_language_models_are_refused_for_a_saved_model(model, dataset, tmp_path, option) -> None:
    folder = model.save_pretrained(tmp_path / "kept")
    with pytest.raises(ConfigError, match=f"{next(iter(option))} is for language models"):
        analyze(str(folder), dataset, **option)


def test_runs_without_a_model_say_what_they_are(model, dataset, log, tmp_path) -> None:
    measured = run_analysis(model, dataset, AnalysisOptions(**FAST), out=tmp_path / "a").run
    assert measured is not None
    with pytest.raises(DataError, match=f"not a training run.*analyze {measured.path}"):
        find_saved_model(str(measured.path))
    begun = training_run(tmp_path / "b", model, dataset, log)
    (begun.path / "model" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no model yet.*--resume"):
        find_saved_model(str(begun.path))
    damaged = training_run(tmp_path / "c", model, dataset, log)
    (damaged.path / "model" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="key 'model'"):
        find_saved_model(str(damaged.path))


def test_a_training_run_holds_no_grams_to_analyse_again(model, dataset, log, tmp_path) -> None:
    run = training_run(tmp_path, model, dataset, log)
    with pytest.raises(ConfigError, match=f"--model {run.path}"):
        reanalyze(run.path, {})


def test_training_runs_that_disagree_on_their_data_need_one_named(model, dataset, log, tmp_path) -> None:
    ours = training_run(tmp_path / "a", model, dataset, log)
    same = training_run(tmp_path / "b", model, dataset, log, name="base")
    theirs = training_run(tmp_path / "c", model, dataset, log, dataset="lastfm", from_dir="raw")
    assert trained_on(["minilm", str(ours.path), str(same.path)]) == (str(log), None)
    assert str(trained_on([str(theirs.path)])[1]) == "raw"
    assert trained_on(["minilm", "sasrec"]) is None
    with pytest.raises(ConfigError, match=r"different data.*--dataset"):
        trained_on([str(ours.path), str(theirs.path)])


def test_the_command_takes_the_data_of_the_training_run(model, dataset, log, tmp_path, monkeypatch, capsys) -> None:
    run = training_run(tmp_path / "trained", model, dataset, log, name="tiny")
    arguments = ["analyze", "--model", str(run.path), "--out", str(tmp_path / "runs"), "--json"]
    code, out, err = run_probe([*arguments, "--dry-run"], monkeypatch, capsys)
    assert code == 0, err
    assert json.loads(out)[str(run.path)]["dataset"] == dataset.name
    assert not (tmp_path / "runs").exists()
    code, out, err = run_probe(arguments, monkeypatch, capsys)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["protocol"]["dataset_fingerprint"] == dataset.fingerprint()
    assert summary["protocol"]["model"] == "sasrec tiny"
    assert "sasrec-tiny" in summary["run"]
    # The measured run is finished again by its path, though its model is a folder.
    assert run_probe(["analyze", "--resume", summary["run"]], monkeypatch, capsys)[0] == 0


@pytest.mark.parametrize("command", ["analyze", "report", "compare"])
def test_commands_that_read_measurements_send_a_training_run_to_model(
    model, dataset, log, tmp_path, monkeypatch, capsys, command
) -> None:
    run = training_run(tmp_path, model, dataset, log)
    runs = [str(run.path)] * (2 if command == "compare" else 1)
    code, _, err = run_probe([command, *runs], monkeypatch, capsys)
    assert code == 2
    assert f"analyze --model {run.path}" in err.replace("\n", "")
