"""The main path end to end: model + data → run folder, and saved Grams analysed again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import analyze, reanalyze, run_analysis
from spectral_probe.errors import ConfigError, DataError, ResourceError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import COLUMNS
from spectral_probe.recording.capture import capture
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.energy import spectral_energy
from spectral_probe.storage.hashing import settings_hash
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_world(1, n_users=90).dataset


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        (f"u{u}", f"i{item}", t)
        for u, s in enumerate(make_world(2, n_users=70).dataset.sequences)
        for t, item in enumerate(s)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


FAST = {"n_bootstrap": 200}


def test_main_path_equals_the_steps_by_hand(dataset: Dataset) -> None:
    profile = analyze(MixingModel(dataset.n_items), dataset, **FAST)
    probe = probe_sequences(dataset)
    grams = capture(MixingModel(dataset.n_items), probe.inputs, probe.lengths)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    bases = graph.local_bases(probe.targets, probe.lengths, users=probe.users)
    by_hand = DecayProfile.from_energy(spectral_energy(grams, bases), **FAST)
    for column in ("share", "excess_low", "retention_high", "rayleigh"):
        np.testing.assert_allclose(profile.table[column], by_hand.table[column], rtol=1e-6, atol=1e-9)
    assert list(profile.to_frame().columns) == COLUMNS
    assert profile.verdict == by_hand.verdict


def test_three_lines_on_an_in_memory_model_and_a_data_frame(frame: pd.DataFrame) -> None:
    model = MixingModel(frame["item_id"].nunique())
    profile = analyze(model, frame, **FAST)
    assert set(profile.table["model"]) == {"mixing"}
    assert profile.n_users + sum(profile.skipped.values()) == 70
    assert {"user_id", "share", "excess_swap"} <= set(profile.per_user.columns)


def test_run_folder_holds_everything_the_result_depends_on(dataset: Dataset, tmp_path) -> None:
    analysis = run_analysis(
        MixingModel(dataset.n_items), dataset, AnalysisOptions(controls=("path-graph",), **FAST), out=tmp_path
    )
    assert analysis.run is not None
    files = {str(p.relative_to(analysis.run.path)) for p in analysis.run.path.rglob("*") if p.is_file()}
    assert files >= {"run.json", "config.yaml", "log.txt", "graph.npz", "bands.csv", "spectrum.npz"}
    assert files >= {"per_user.csv.gz", "summary.json", "figures/decay.png", "figures/decay.pdf", "figures/decay.csv"}
    assert not [name for name in files if "unfinished" in name]
    assert analysis.run.state()["status"] == "finished"
    assert analysis.run.path.name.endswith(settings_hash(analysis.run.config())[:8])
    summary = json.loads((analysis.run.path / "summary.json").read_text())
    assert summary["verdict"] == str(analysis.profile.verdict)
    assert summary["protocol"]["dataset_fingerprint"] == dataset.fingerprint()
    again = DecayProfile.load(analysis.run.path)
    pd.testing.assert_frame_equal(again.to_frame(), analysis.profile.to_frame(), check_dtype=False)
    assert set(again.controls) == {"raw", "path-graph"}
    assert again.controls["path-graph"].verdict.label == "none"
    assert "swap" not in set(again.controls["path-graph"].table["null"])


def test_saved_grams_are_analysed_again_without_the_model(dataset: Dataset, tmp_path) -> None:
    model = MixingModel(dataset.n_items)
    first = run_analysis(model, dataset, AnalysisOptions(**FAST), out=tmp_path)
    assert first.run is not None
    changes = {
        "bands": "pooled:3",
        "own_user": "keep",
        "tau": 2.0,
        "null": "permutation",
        "controls": ["normalized-rows"],
    }
    again = reanalyze(first.run.path, changes, out=tmp_path)
    straight = analyze(model, dataset, **{**FAST, **changes})
    pd.testing.assert_frame_equal(again.profile.to_frame(), straight.to_frame())
    # A third analysis, of the second run, finds its Grams through the second.
    assert again.run is not None
    third = reanalyze(again.run.path, {}, out=None)
    pd.testing.assert_frame_equal(third.profile.to_frame(), analyze(model, dataset, **FAST).to_frame())


@pytest.mark.parametrize("changes", [{"sequence": "full"}, {"max_length": 5}, {"controls": ["random-weights"]}])
def test_saved_grams_cannot_answer_what_needs_the_model(dataset: Dataset, tmp_path, changes) -> None:
    first = run_analysis(MixingModel(dataset.n_items), dataset, AnalysisOptions(**FAST), out=tmp_path)
    assert first.run is not None
    with pytest.raises(ConfigError, match="--model and --dataset"):
        reanalyze(first.run.path, changes)


def test_interrupted_run_is_resumed_to_the_same_bytes(dataset: Dataset, tmp_path, monkeypatch) -> None:
    options = AnalysisOptions(batch_size=4, controls=("shuffled-history",), **FAST)
    straight = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path / "a")

    from spectral_probe.recording.shards import ShardFolder

    write, calls = ShardFolder.write, []

    def dying_write(self, shard, part):
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(self, shard, part)

    monkeypatch.setattr(ShardFolder, "write", dying_write)
    with pytest.raises(KeyboardInterrupt):
        run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path / "b")
    monkeypatch.undo()
    resumed = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path / "b", resume=True)
    assert straight.run is not None
    assert resumed.run is not None
    assert len(list((tmp_path / "b").iterdir())) == 1
    for name in ("bands.csv", "per_user.csv.gz", "summary.json"):
        assert (resumed.run.path / name).read_bytes() == (straight.run.path / name).read_bytes()


def test_resume_ignores_finished_and_different_runs(dataset: Dataset, tmp_path) -> None:
    model = MixingModel(dataset.n_items)
    first = run_analysis(model, dataset, AnalysisOptions(**FAST), out=tmp_path)
    assert first.run is not None
    assert AnalysisRun.newest_unfinished(tmp_path, first.run.config()) is None
    first.run.write_state("running")
    assert AnalysisRun.newest_unfinished(tmp_path, first.run.config()) == first.run
    assert AnalysisRun.newest_unfinished(tmp_path, {**first.run.config(), "dataset": "other"}) is None


def test_a_run_is_never_overwritten(dataset: Dataset, tmp_path) -> None:
    first = run_analysis(MixingModel(dataset.n_items), dataset, AnalysisOptions(**FAST), out=tmp_path)
    assert first.run is not None
    with pytest.raises(ConfigError, match="never overwritten"):
        run_analysis(MixingModel(dataset.n_items), dataset, AnalysisOptions(**FAST), out=first.run.path)


def test_published_curve_is_the_raw_share_of_output_states(dataset: Dataset) -> None:
    model = MixingModel(dataset.n_items)
    profile = analyze(model, dataset, preset="paper", **FAST)
    table = profile.controls["paper"].table
    assert set(table["band"]) == {"low", *map(str, range(1, 11))}
    assert list(dict.fromkeys(table["layer_name"])) == ["embed", "block 1", "block 2"]
    # By hand: final norm on every state, whole history, own user kept, nothing dropped, max(1, ⌊T/10⌋) eigenvalues.
    whole = probe_sequences(dataset, part="full")
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    bases = graph.local_bases(whole.targets, whole.lengths, own_user="keep")
    shares = []
    for row, length in enumerate(whole.lengths):
        with torch.no_grad():
            H = model.norm(model.table(torch.from_numpy(whole.inputs[row, :length]))).double().numpy()
        if length < 4 or not bases.has_edges[row]:
            continue
        energy = ((bases.eigenvectors[row, :length, :length].T @ H) ** 2).sum(axis=1)
        shares.append(energy[: max(1, length // 10)].sum() / energy.sum())
    first = table[(table["layer_name"] == "embed") & (table["band"] == "1")]["share"].iloc[0]
    assert first == pytest.approx(np.mean(shares), rel=1e-5)
    assert profile.controls["paper"].verdict.label == "none"
    assert profile.verdict.label != "none"


def test_controls_are_what_they_say(dataset: Dataset) -> None:
    profile = analyze(
        MixingModel(dataset.n_items),
        dataset,
        controls=["random-weights", "shuffled-history", "normalized-rows", "path-graph"],
        **FAST,
    )
    low = profile.to_frame().query("band == 'low' and layer_name == 'embed' and null == 'permutation'")
    share = low.set_index("control")["share"]
    # The item table is kept, so redrawing the blocks cannot move the embed; shuffling moves rows and nodes together.
    assert share["random-weights"] == pytest.approx(share["none"], rel=1e-6)
    assert share["normalized-rows"] != pytest.approx(share["none"], rel=1e-3)
    # Another step of each history now stands first and is dropped.
    assert share["shuffled-history"] != pytest.approx(share["none"], rel=1e-4)
    blocks = profile.to_frame().query("band == 'low' and layer_name == 'block 2' and null == 'swap'")
    share = blocks.set_index("control")["share"]
    assert share["random-weights"] != pytest.approx(share["none"], rel=1e-3)


def test_users_draws_a_seeded_subset_and_says_so(dataset: Dataset) -> None:
    model = MixingModel(dataset.n_items)
    first = analyze(model, dataset, users=40, seed=3, **FAST)
    assert first.n_users + sum(first.skipped.values()) == 40
    assert "truncated-users" in first.caveats
    pd.testing.assert_frame_equal(first.table, analyze(model, dataset, users=40, seed=3, **FAST).table)


def test_too_much_memory_is_refused_before_the_model_runs(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr("spectral_probe.analysis.captures.os.sysconf", lambda name: 100)
    with pytest.raises(ResourceError, match="--users"):
        analyze(MixingModel(dataset.n_items), dataset)


def test_unknown_names_are_refused_with_a_suggestion(dataset: Dataset) -> None:
    model = MixingModel(dataset.n_items)
    with pytest.raises(ConfigError, match="Did you mean 'max_length'"):
        analyze(model, dataset, max_lenght=3)
    with pytest.raises(ConfigError, match="Did you mean 'lastfm'"):
        analyze(model, "lastfmm")
    with pytest.raises(DataError, match="no file"):
        analyze(model, "nowhere/log.csv")
    with pytest.raises(ConfigError, match="layers"):
        analyze(nn.Linear(2, 2), dataset)
    with pytest.raises(ConfigError, match="'raw-weights'"):
        analyze(model, dataset, controls=["raw-weights"])


def test_disk_full_while_writing_says_what_to_do(dataset: Dataset, tmp_path, monkeypatch) -> None:
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DecayProfile, "save", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        run_analysis(MixingModel(dataset.n_items), dataset, AnalysisOptions(**FAST), out=tmp_path)
    run = AnalysisRun.open(next(tmp_path.iterdir()))
    assert run.state()["status"] == "running"
    assert run.load_captures()["main"].grams.shape[0] > 0


def test_one_pass_of_a_two_sided_model_is_leaky_and_gets_no_verdict(dataset: Dataset) -> None:
    class TwoSided(MixingModel):
        is_causal = False

        def forward_sequences(self, inputs, lengths):
            state = self.table(inputs)
            state = state + state.mean(dim=1, keepdim=True)
            for block in self.blocks:
                state = block(state)
            return self.norm(state)

    honest = analyze(TwoSided(dataset.n_items), dataset, **FAST)
    assert honest.verdict.label != "none"
    leaky = analyze(TwoSided(dataset.n_items), dataset, prefixes=False, **FAST)
    assert leaky.verdict.label == "none"
    assert "leaky" in leaky.caveats


def test_log_of_one_long_user_cannot_be_measured() -> None:
    lonely = Dataset.from_interactions(Interactions.from_sequences([np.arange(9)], n_items=9))
    with pytest.raises(DataError, match="without an edge"):
        analyze(MixingModel(9), lonely)


def test_min_targets_leaves_short_histories_out_of_the_curve_but_not_out_of_the_references(dataset: Dataset) -> None:
    model = MixingModel(dataset.n_items)
    every, long = analyze(model, dataset, **FAST), analyze(model, dataset, min_targets=9, **FAST)
    assert long.per_user["n_targets"].min() == 9
    assert long.skipped["fewer than 9 targets"] > 0
    # The references do not change, so a user who stays has the same excess.
    merged = long.per_user.merge(every.per_user, on=["user_id", "layer_name"])
    np.testing.assert_allclose(merged["excess_swap_x"], merged["excess_swap_y"])
    with pytest.raises(ConfigError, match="min_targets"):
        analyze(model, dataset, min_targets=3)
