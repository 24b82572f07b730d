"""The main path end to end: model + data → run folder, and saved Grams analysed again."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from spectral_probe.analysis import pipeline
from spectral_probe.analysis.captures import N_ARRAYS, capture_names, plan_captures
from spectral_probe.analysis.cost import plan
from spectral_probe.analysis.measurable import n_drawable, truncated
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import analyze, run_analysis
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.errors import ConfigError, DataError, ResourceError
from spectral_probe.graph import popularity
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import COLUMNS, select_curve
from spectral_probe.recording.capture import capture
from spectral_probe.report.words import changes_in_words
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum import components, nulls
from spectral_probe.spectrum.components import ComponentOperators
from spectral_probe.spectrum.energy import spectral_energy
from spectral_probe.spectrum.nodes import MeasuredNodes
from spectral_probe.storage.hashing import settings_hash
from tests.spectral_probe.tiny_models import MixingModel, stop_in
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
#: Controls without components.
NO_COMPONENTS = ("raw", "path-graph")


def test_main_path_equals_the_steps_by_hand(dataset: Dataset) -> None:
    profile = analyze(MixingModel(dataset.n_items), dataset, **FAST)
    probe = probe_sequences(dataset)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    grams = capture(
        MixingModel(dataset.n_items),
        *(probe.inputs, probe.lengths),
        users=probe.users,
        targets=probe.targets,
        item_counts=graph.item_counts,
    )
    for nodes, items in (("carried", probe.inputs), ("foreseen", probe.targets)):
        measured = MeasuredNodes.of(items, probe.lengths, drop_first=1, min_nodes=3)
        bases = graph.local_bases(measured.items[:, : measured.width], measured.lengths, users=probe.users)
        match = PopularityMatch.draw(graph, measured.items, measured.n_nodes, probe.users)
        operators = ComponentOperators.build(bases, match)
        energy = spectral_energy(measured.select(grams), bases, matched=operators)
        by_hand = DecayProfile.from_energy(energy, nodes=nodes, **FAST)
        table = profile.table[profile.table["nodes"] == nodes].reset_index(drop=True)
        for column in ("share", "excess", "excess_low", "retention_high", "n_users", "n_effective", "rayleigh"):
            np.testing.assert_allclose(table[column], by_hand.table[column], rtol=1e-6, atol=1e-9, err_msg=column)
        if nodes == "carried":
            assert profile.embed_excess == by_hand.embed_excess
            assert {name: v.label for name, v in profile.verdicts.items()} == {
                name: v.label for name, v in by_hand.verdicts.items()
            }
    assert list(profile.to_frame().columns) == COLUMNS


def test_three_lines_on_an_in_memory_model_and_a_data_frame(frame: pd.DataFrame) -> None:
    model = MixingModel(frame["item_id"].nunique())
    profile = analyze(model, frame, **FAST)
    assert set(profile.table["model"]) == {"mixing"}
    assert profile.n_users + sum(profile.user_counts["skipped"].values()) == profile.user_counts["probed"] == 70
    assert {"user_id", "nodes", "measured", "weight", "taste", "popularity", "share"} <= set(profile.per_user.columns)


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
    assert set(again.controls) == {"raw", "plain", "normalized-rows", "equal-weights", "path-graph"}
    assert summary["format"] == 2
    assert summary["users"]["measured"] == summary["n_users"] == analysis.profile.verdict.n_users
    assert (analysis.run.path / "grams" / "main" / "pilot.safetensors").is_file()
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
        "controls": ["split-graph", "path-graph"],
    }
    again = reanalyze(first.run.path, changes, out=tmp_path)
    differing = again.profile.protocol["differs_from_source"]
    assert differing.keys() == {"bands", "own_user", "tau", "null"}
    assert differing["own_user"] == "drop → keep"
    assert "own_user (drop → keep)" in changes_in_words(again.profile)
    straight = analyze(model, dataset, **{**FAST, **changes})
    pd.testing.assert_frame_equal(again.profile.to_frame(), straight.to_frame())
    # A user without an edge of others is on no curve of the source, and has a name here.
    assert set(again.profile.per_user["sequence"]) > set(first.profile.per_user["sequence"])
    named = straight.per_user.assign(user_id=straight.per_user["user_id"].astype("string"))
    pd.testing.assert_frame_equal(again.profile.per_user, named)
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


@pytest.mark.parametrize(("method", "call"), [("write", 2), ("begin", 2)])
def test_interrupted_run_is_resumed_to_the_same_bytes(dataset: Dataset, tmp_path, monkeypatch, method, call) -> None:
    """Stopped in a shard of the first capture, and between the pilot and the first shard of the second."""
    options = AnalysisOptions(batch_size=4, controls=("shuffled-history",), **FAST)
    straight = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path / "a")

    stop_in(monkeypatch, method, call)
    with pytest.raises(KeyboardInterrupt):
        run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path / "b")
    monkeypatch.undo()
    resumed = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path / "b", resume=True)
    assert straight.run is not None
    assert resumed.run is not None
    assert len(list((tmp_path / "b").iterdir())) == 1
    captured = {str(path.relative_to(straight.run.path)) for path in (straight.run.path / "grams").rglob("*.*")}
    assert {f"grams/{name}/pilot.safetensors" for name in ("main", "shuffled-history")} < captured
    for name in ("bands.csv", "per_user.csv.gz", "summary.json", *captured):
        assert (resumed.run.path / name).read_bytes() == (straight.run.path / name).read_bytes()


def test_resume_ignores_finished_and_different_runs(dataset: Dataset, tmp_path) -> None:
    model = MixingModel(dataset.n_items)
    first = run_analysis(model, dataset, AnalysisOptions(**FAST), out=tmp_path)
    assert first.run is not None
    assert AnalysisRun.newest_unfinished(tmp_path, first.run.config()) is None
    first.run.write_state("running")
    assert AnalysisRun.newest_unfinished(tmp_path, first.run.config()) == first.run
    assert AnalysisRun.newest_unfinished(tmp_path, {**first.run.config(), "dataset": "other"}) is None


def test_a_re_analysis_says_what_changed_and_loses_nothing(dataset: Dataset, tmp_path) -> None:
    first = run_analysis(MixingModel(dataset.n_items), dataset, AnalysisOptions(**FAST, users=60), out=tmp_path).run
    assert first is not None
    again = reanalyze(first.path, {"tau": 2.0, "own_user": "keep"}, out=tmp_path)
    assert again.run is not None
    assert "tau (1.0 → 2.0), own_user (drop → keep)" in changes_in_words(again.profile)
    assert "tau (1.0 → 2.0)" in (again.run.path / "report.html").read_text(encoding="utf-8")
    caption = (again.run.path / "figures" / "decay.txt").read_text(encoding="utf-8")
    assert " ".join(caption.split()).endswith("τ = 2; the user's own co-occurrences kept.")
    third = reanalyze(again.run.path, {"weights": "equal"}, out=tmp_path)
    assert third.profile.protocol["differs_from_source"] == {"weights": "graph → equal"}
    (first.path / "summary.json").unlink()  # as in a run that was stopped before it was measured
    for profile in (again.profile, third.profile, reanalyze(first.path, {"tau": 3.0}).profile):
        assert "truncated-users" in profile.caveats
        assert "user_id" in profile.per_user


def test_resume_computes_no_finished_run_again_and_says_so(dataset: Dataset, tmp_path, monkeypatch, caplog) -> None:
    model, options = MixingModel(dataset.n_items), AnalysisOptions(**FAST)
    first = run_analysis(model, dataset, options, out=tmp_path, resume=True)
    assert "holds no unfinished run of mixing on" in caplog.text
    assert first.run is not None
    before = (first.run.path / "run.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "run_captures", lambda *_args, **_kwargs: pytest.fail("the model ran again"))
        again = run_analysis(model, dataset, options, out=tmp_path, resume=True)
    assert again.run == first.run
    assert again.profile.summary() == first.profile.summary()
    assert "is finished already" in caplog.text
    assert (first.run.path / "run.json").read_bytes() == before
    (first.run.path / "summary.json").write_text("{")  # then it is measured again, in its place
    assert run_analysis(model, dataset, options, out=tmp_path, resume=True).run == first.run
    assert DecayProfile.load(first.run.path).summary() == first.profile.summary()
    assert len(list(tmp_path.iterdir())) == 1


def test_where_runs_go_is_tried_before_anything_is_loaded(dataset: Dataset, tmp_path, monkeypatch) -> None:
    done = run_analysis(MixingModel(dataset.n_items), dataset, AnalysisOptions(**FAST), out=tmp_path / "runs").run
    assert done is not None
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(pipeline, "resolve_dataset", lambda *_args: pytest.fail("the data were read"))
    monkeypatch.setattr(AnalysisRun, "load_captures", lambda _self: pytest.fail("the Grams were read"))
    for out, kind in ((tmp_path / "file" / "runs", ResourceError), (done.path, ConfigError)):
        with pytest.raises(kind, match=re.escape(str(out))):
            run_analysis("sasrec", "demo", AnalysisOptions(), out=out)
        with pytest.raises(kind, match=re.escape(str(out))):
            reanalyze(done.path, {"tau": 2.0}, out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_a_cache_that_fails_is_a_warning(dataset: Dataset, tmp_path, monkeypatch, caplog) -> None:
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    expected = analyze(MixingModel(dataset.n_items), dataset, **FAST)
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    for module in (popularity, components, nulls):
        monkeypatch.setattr(module, "write_npz", full)
    assert analyze(MixingModel(dataset.n_items), dataset, **FAST).summary() == expected.summary()
    assert "could not be stored in the cache (No space left on device)" in caplog.text


def test_an_unfinished_run_of_an_older_version_is_resumed(dataset: Dataset, tmp_path) -> None:
    options = AnalysisOptions(**FAST)
    first = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path).run
    assert first is not None
    assert first.kind == "analysis"
    state = first.state()
    del state["kind"]  # version 0.1.0 wrote none
    (first.path / "run.json").write_text(json.dumps({**state, "status": "interrupted"}))
    again = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path, resume=True).run
    assert again == first
    assert first.state()["status"] == "finished"


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
    # The users of the headline, each on as many leading targets as at least 20 others of them have.
    probed = probe_sequences(dataset).users[profile.energy.is_valid]
    rows = [row for row, user in enumerate(whole.users) if user in probed]
    lengths = whole.lengths.copy()
    for row in rows:
        enough = [
            T for T in range(1, whole.lengths[row] + 1) if sum(whole.lengths[v] >= T for v in rows if v != row) >= 20
        ]
        lengths[row] = max(enough)
    bases = graph.local_bases(whole.targets, lengths, own_user="keep")
    shares = []
    for row in rows:
        length = lengths[row]
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


def test_controls_are_what_they_say() -> None:
    dataset = make_world(5, n_users=150, n_items=80).dataset  # enough lengths for weights that differ
    profile = analyze(
        MixingModel(dataset.n_items),
        dataset,
        controls=["random-weights", "shuffled-history", "path-graph"],
        **FAST,
    )
    frame = profile.to_frame().query("band == 'low' and null == 'swap' and nodes == 'carried'")
    frame = frame[frame["component"].isin(["taste", "popularity"])]

    def excess(component: str, control: str, layer: str) -> float:
        treatment = {"plain": "plain", "normalized-rows": "rows"}.get(control)
        rows = select_curve(frame, component=component, control=control, treatment=treatment)
        return float(rows.set_index("layer_name").loc[layer, "excess"])

    taste = {name: excess("taste", name, "embed") for name in ("none", *profile.controls) if name not in NO_COMPONENTS}
    # The item table is kept, so redrawing the blocks cannot move the embed; shuffling moves rows and nodes together.
    assert taste["random-weights"] == pytest.approx(taste["none"], rel=1e-6)
    for other in ("plain", "normalized-rows", "equal-weights", "shuffled-history"):
        assert taste[other] != pytest.approx(taste["none"], rel=1e-3), other
    assert excess("taste", "random-weights", "block 2") != pytest.approx(excess("taste", "none", "block 2"), rel=1e-3)
    # Popularity is measured on unit rows without residuals anyway.
    popularity = {name: excess("popularity", name, "embed") for name in ("none", "normalized-rows", "plain")}
    assert popularity["normalized-rows"] == popularity["none"] != popularity["plain"]
    assert set(profile.paired) == {"random-weights", "shuffled-history"}
    share = profile.controls["path-graph"].table.query("band == 'low' and null == 'cyclic'").set_index("layer_name")
    assert share.loc["embed", "excess"] != 0


def test_users_draws_a_seeded_subset_and_says_so(dataset: Dataset) -> None:
    model = MixingModel(dataset.n_items)
    first = analyze(model, dataset, users=40, seed=3, **FAST)
    assert first.n_users + sum(first.user_counts["skipped"].values()) == first.user_counts["probed"] == 40
    assert "truncated-users" in first.caveats
    pd.testing.assert_frame_equal(first.table, analyze(model, dataset, users=40, seed=3, **FAST).table)


def test_too_much_memory_is_refused_before_the_model_runs(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr("spectral_probe.analysis.captures.os.sysconf", lambda name: 100)
    with pytest.raises(ResourceError, match="--users"):
        analyze(MixingModel(dataset.n_items), dataset)


def test_only_layers_that_are_recorded_count_in_the_memory(dataset: Dataset, monkeypatch) -> None:
    sizes = []
    monkeypatch.setattr("spectral_probe.analysis.captures.check_memory", lambda *size: sizes.append(size))
    model = MixingModel(dataset.n_items)
    for layers in (None, ["block 1"]):
        tasks = plan_captures(model, dataset, AnalysisOptions(layers=layers, preset="paper"))
        n, T = tasks[0].sequences.inputs.shape
        assert sizes.pop() == (n, T, 4 if layers is None else 3, 2 + 1)  # the input and the last block always are
    cost = plan("tiny-random:llama", 10, 8)
    needed = cost.gram_bytes + cost.analysis_bytes  # the refusal and the plan count alike
    assert needed == 10 * 8 * 8 * (4 * cost.n_states + 8 * N_ARRAYS)


def test_the_names_of_the_captures_are_those_that_are_planned(dataset: Dataset) -> None:
    class WithGraph(MixingModel):
        has_graph = True

        def on_graph(self, other, training):
            return self

    options = AnalysisOptions(controls=["split-graph", "random-weights", "shuffled-history"], preset="paper")
    for kind in (MixingModel, WithGraph):
        model = kind(dataset.n_items)
        planned = [task.name for task in plan_captures(model, dataset, options)]
        assert planned == capture_names(options, has_graph=kind is WithGraph)
    assert planned[-2:] == ["split-graph-1", "split-graph-2"]


@pytest.mark.parametrize("control", ["exchanged-items", "random-weights"])
def test_a_control_that_a_model_cannot_be_run_for_leaves_no_run(dataset: Dataset, tmp_path, control) -> None:
    model = MixingModel(dataset.n_items)
    if control == "random-weights":  # an object that is no module
        model = SimpleNamespace(
            name="x", is_causal=True, layers=model.layers, forward_sequences=model.forward_sequences
        )
    with pytest.raises(ConfigError, match=control):
        run_analysis(model, dataset, AnalysisOptions(controls=[control]), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_draw_of_the_users_is_one_by_the_option_alone(dataset: Dataset) -> None:
    n = n_drawable(dataset)
    assert n == 90
    for users, caveats in ((None, ()), (n + 10, ()), (n, ()), (n - 1, ("truncated-users",))):
        assert truncated(AnalysisOptions(users=users), n) == caveats
    short = [s[:3] if u % 2 else s for u, s in enumerate(dataset.sequences)]
    some_short = Dataset.from_interactions(Interactions.from_sequences(short, n_items=dataset.n_items))
    profile = analyze(MixingModel(dataset.n_items), some_short, sequence="train", **FAST)
    assert profile.user_counts["probed"] < n
    assert "truncated-users" not in profile.caveats


def test_an_unmeasured_run_of_all_users_is_analysed_again_without_a_caveat(
    dataset: Dataset, tmp_path, monkeypatch
) -> None:
    for part in ("write_figures", "write_report"):
        monkeypatch.setattr(f"spectral_probe.report.folder.{part}", lambda *_, **__: None)
    options = AnalysisOptions(**FAST, users=200)
    run = run_analysis(MixingModel(dataset.n_items), dataset, options, out=tmp_path).run
    (run.path / "summary.json").unlink()
    # A user with two interactions is in the graph, and cannot be drawn.
    run.write_state("interrupted", n_drawable=200)
    assert "truncated-users" not in reanalyze(run.path, {"tau": 2.0}).profile.caveats
    run.write_state("interrupted", n_drawable=201)
    assert "truncated-users" in reanalyze(run.path, {"tau": 2.0}).profile.caveats


def test_the_run_that_is_named_is_finished_and_no_other(dataset: Dataset, tmp_path, monkeypatch) -> None:
    for part in ("write_figures", "write_report"):
        monkeypatch.setattr(f"spectral_probe.report.folder.{part}", lambda *_, **__: None)
    model, options = MixingModel(dataset.n_items), AnalysisOptions(**FAST)
    first = run_analysis(model, dataset, options, out=tmp_path).run
    twin = AnalysisRun(shutil.copytree(first.path, first.path.with_name(f"3{first.path.name[1:]}")))
    for run in (first, twin):
        run.write_state("interrupted")
    assert run_analysis(model, dataset, options, out=tmp_path, resume=first).run == first
    assert [run.state()["status"] for run in (first, twin)] == ["finished", "interrupted"]
    before = (first.path / "run.json").read_bytes()
    other = make_world(2, n_users=90).dataset
    with pytest.raises(ConfigError, match="dataset_fingerprint would change"):
        run_analysis(MixingModel(other.n_items), other, options, out=tmp_path, resume=first)
    assert (first.path / "run.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


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
    assert run.state()["status"] == "failed"
    assert "No space left on device" in run.state()["error"]
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
    with pytest.raises(DataError, match=r"measured: local graph without an edge \(1\)\."):
        analyze(object(), lonely)  # refused before the model is looked at
    assert analyze(MixingModel(9), lonely, own_user="keep").user_counts["measured"] == 1


def test_min_targets_leaves_short_histories_out_of_the_curve_but_not_out_of_the_references(dataset: Dataset) -> None:
    model = MixingModel(dataset.n_items)
    every, long = analyze(model, dataset, **FAST), analyze(model, dataset, min_targets=7, **FAST)
    assert long.per_user["measured"].min() == 6  # seven targets, the first of which is dropped
    assert long.user_counts["skipped"]["fewer than 7 targets"] > 0
    # The references do not change, so a user who stays has the same excess.
    merged = long.per_user.merge(every.per_user, on=["user_id", "nodes", "layer_name"])
    assert len(merged) == len(long.per_user)
    for name in ("excess_swap", "popularity", "taste"):
        np.testing.assert_allclose(merged[f"{name}_x"], merged[f"{name}_y"])
    with pytest.raises(ConfigError, match="min_targets"):
        analyze(model, dataset, min_targets=3)
