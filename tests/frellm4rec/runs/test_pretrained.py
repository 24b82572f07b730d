import shutil
from dataclasses import replace
from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from benchmarks.pages import sasrec_quality
from frellm4rec import plugins
from frellm4rec.models import SASRec
from frellm4rec.runs import pretrained, weight_cache
from frellm4rec.training import TrainingConfig
from frellm4rec.training.checkpoints import CheckpointFolder
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.storage.lock import LOCK
from tests.frellm4rec.conftest import make_ring

FAST = TrainingConfig(n_epochs=2, validate_every=1)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Keep weights in a folder of the test, and count the training runs."""
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    seeds = []

    def counted(*args, seed, **kwargs):
        seeds.append(seed)
        return train(*args, seed=seed, **kwargs)

    train = pretrained.train
    monkeypatch.setattr(pretrained, "train", counted)
    return seeds


def test_trains_once_per_log_settings_and_seed(random_log, runs, tmp_path):
    first = pretrained.pretrained("sasrec", random_log, training=FAST)
    titled = replace(random_log, item_titles=["x"] * random_log.n_items)
    assert pretrained.pretrained("sasrec", titled, training=FAST).revision == first.revision
    assert runs == [0]
    pretrained.pretrained("sasrec", random_log, training=FAST, seed=1)
    pretrained.pretrained("sasrec", random_log, training=replace(FAST, learning_rate=1e-2))
    assert runs == [0, 1, 0]
    folders = list((tmp_path / "cache" / "sasrec").iterdir())
    assert len(folders) == 3
    names = {"config.json", "model.safetensors", "training.json"}
    assert all({path.name for path in folder.iterdir()} == names for folder in folders)


@pytest.mark.parametrize("n_items", [8, 10])  # the list of FAST has 10
def test_a_catalogue_no_larger_than_the_list_of_the_recipe_has_a_shorter_list(n_items, runs, monkeypatch):
    small = make_ring(n_items=n_items, length=6)
    monkeypatch.setattr(pretrained, "TrainingConfig", SimpleNamespace(from_dict=lambda _: FAST))
    model = pretrained.pretrained("sasrec", small)
    assert runs == [0]
    assert model.config.n_items == n_items
    with pytest.raises(ConfigError, match="below the number of items"):
        pretrained.pretrained("sasrec", small, training=FAST)


def test_another_recipe_leaves_old_weights_unused(random_log, runs, monkeypatch):
    pretrained.pretrained("sasrec", random_log, training=FAST)
    monkeypatch.setattr(weight_cache, "RECIPE_VERSION", weight_cache.RECIPE_VERSION + 1)
    pretrained.pretrained("sasrec", random_log, training=FAST)
    assert runs == [0, 0]


def test_damaged_weights_are_not_used(random_log, runs, tmp_path):
    pretrained.pretrained("sasrec", random_log, training=FAST)
    (folder,) = (tmp_path / "cache" / "sasrec").iterdir()
    other = pretrained.pretrained("sasrec", random_log, training=FAST, seed=1)
    other.save_pretrained(folder)
    with pytest.raises(ModelError, match="Delete the folder"):
        pretrained.pretrained("sasrec", random_log, training=FAST)


def test_an_interrupted_training_goes_on_from_its_checkpoint(random_log, runs, tmp_path, monkeypatch, caplog):
    straight = pretrained.pretrained("sasrec", random_log, training=FAST, seed=1)
    assert "Training sasrec on" in caplog.text
    expected = pretrained.pretrained("sasrec", random_log, training=FAST)
    for folder in (tmp_path / "cache" / "sasrec").iterdir():
        shutil.rmtree(folder)
    save, n_saved = CheckpointFolder.save, []

    def stopped(self, *arguments):
        save(self, *arguments)
        n_saved.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointFolder, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrained.pretrained("sasrec", random_log, training=FAST)
    (folder,) = (tmp_path / "cache" / "sasrec").iterdir()
    assert folder.name.endswith("-unfinished")
    monkeypatch.setattr(CheckpointFolder, "save", save)
    assert pretrained.pretrained("sasrec", random_log, training=FAST).revision == expected.revision
    assert expected.revision != straight.revision
    (folder,) = (tmp_path / "cache" / "sasrec").iterdir()
    assert not folder.name.endswith("-unfinished")


def test_damaged_checkpoints_cost_time_only(random_log, runs, tmp_path, caplog):
    expected = pretrained.pretrained("sasrec", random_log, training=FAST)
    (folder,) = (tmp_path / "cache" / "sasrec").iterdir()
    shutil.rmtree(folder)
    damaged = weight_cache.unfinished_folder(folder) / "step-000000001-end"
    damaged.mkdir(parents=True)
    (damaged / "state.json").write_text("{")
    assert pretrained.pretrained("sasrec", random_log, training=FAST).revision == expected.revision
    assert "training from the beginning" in caplog.text


def test_a_training_that_another_process_does_is_done_beside_it(random_log, runs, tmp_path, caplog):
    expected = pretrained.pretrained("sasrec", random_log, training=FAST)
    (folder,) = (tmp_path / "cache" / "sasrec").iterdir()
    shutil.rmtree(folder)
    unfinished = weight_cache.unfinished_folder(folder)
    unfinished.mkdir()
    with FileLock(unfinished / LOCK):
        assert pretrained.pretrained("sasrec", random_log, training=FAST).revision == expected.revision
        assert not list(unfinished.glob("step-*"))
    assert "A training has" in caplog.text
    assert "training from the beginning without them" in caplog.text


def test_a_cache_that_cannot_be_written_is_a_warning(random_log, runs, tmp_path, monkeypatch, caplog):
    expected = pretrained.pretrained("sasrec", random_log, training=FAST)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "file" / "cache"))
    model = pretrained.pretrained("sasrec", random_log, training=FAST)
    assert model.revision == expected.revision
    assert "The cache cannot be used" in caplog.text
    assert "SPECTRAL_PROBE_CACHE" in caplog.text
    pretrained.pretrained("sasrec", random_log, training=FAST)  # stored until the process ends
    assert runs == [0, 0]


def test_trained_weights_survive_a_cache_that_is_full(random_log, runs, tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SASRec, "save_pretrained", full)
    assert pretrained.pretrained("sasrec", random_log, training=FAST).revision
    assert "could not be stored in the cache (No space left on device)" in caplog.text


def test_plugins_hand_over_the_same_model(random_log, runs, monkeypatch):
    trained = pretrained.pretrained
    monkeypatch.setattr(pretrained, "pretrained", lambda *args, **kwargs: trained(*args, training=FAST, **kwargs))
    model = plugins.sasrec(random_log, seed=2)
    table = plugins.id_embeddings(random_log, seed=2)
    assert table.shape == (random_log.n_items, 50)
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, model.item_embeddings().detach().numpy())
    assert runs == [2]


@pytest.mark.parametrize(
    ("group", "name"),
    [("spectral_probe.models", "sasrec"), ("spectral_probe.datasets", "lastfm"), ("spectral_probe.inputs", "id")],
)
def test_entry_points_are_found(group, name):
    (point,) = [point for point in entry_points(group=group) if point.name == name]
    assert callable(point.load())


def test_quality_table_has_its_protocol(random_log, runs, tmp_path, monkeypatch):
    sample = sasrec_quality.sample_candidates
    monkeypatch.setattr(sasrec_quality, "sample_candidates", lambda *a, **kw: sample(*a, **kw, n_negatives=9))
    out = tmp_path / "figures" / "quality.csv"
    sasrec_quality.run(random_log, 2, out, training=FAST)
    df = pd.read_csv(out)
    assert list(df.columns) == sasrec_quality.COLUMNS
    assert df[["seed", "ranking"]].values.tolist() == [[0, "9+1"], [0, "full"], [1, "9+1"], [1, "full"]]
    assert df["ndcg"].between(0, 1).all()
    assert df["protocol"].str.contains("leave-one-out test").all()
    assert [path.name for path in out.parent.iterdir()] == ["quality.csv"]


def test_quality_keeps_finished_seeds(random_log, runs, tmp_path, monkeypatch):
    def second_fails(dataset, seed, **kwargs):
        if seed:
            raise KeyboardInterrupt
        return pd.DataFrame({"seed": [seed]})

    monkeypatch.setattr(sasrec_quality, "measure", second_fails)
    with pytest.raises(KeyboardInterrupt):
        sasrec_quality.run(random_log, 2, tmp_path / "quality.csv")
    assert pd.read_csv(tmp_path / "quality.csv")["seed"].tolist() == [0]


def test_quality_reports_errors_with_their_exit_code(tmp_path, capsys, random_log):
    arguments = ["--from-dir", str(tmp_path / "none"), "--out", str(tmp_path / "q.csv")]
    assert sasrec_quality.main(arguments) == 3
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--seeds"):
        sasrec_quality.run(random_log, 0, tmp_path / "q.csv")
