import json
import math

import numpy as np
import pytest
import torch

from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.models.losses import gbce_beta
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.models.traits import Traits
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch
from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions


def batch(*histories, width=None):
    width = width or max(map(len, histories))
    inputs = torch.zeros(len(histories), width, dtype=torch.long)
    for row, history in enumerate(histories):
        inputs[row, : len(history)] = torch.tensor(history)
    return inputs, torch.tensor([len(history) for history in histories])


HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [29], [7, 7, 0]]


def test_scores_ignore_padding_batch_mates_and_order(sasrec):
    together = sasrec.score(*batch(*HISTORIES))
    assert together.std() > 0.1, "scores that hardly differ would pass anything"
    for row, history in enumerate(HISTORIES):
        for width in (len(history), 10):
            alone = sasrec.score(*batch(history, width=width))[0]
            torch.testing.assert_close(alone, together[row], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sasrec.score(*batch(*HISTORIES[::-1])), together.flip(0), rtol=1e-5, atol=1e-5)


def test_padded_positions_may_hold_anything(sasrec):
    inputs, lengths = batch(*HISTORIES)
    filled = torch.where(torch.arange(inputs.shape[1]) < lengths[:, None], inputs, 13)
    torch.testing.assert_close(sasrec.score(filled, lengths), sasrec.score(inputs, lengths))


def test_later_items_leave_earlier_states_alone(sasrec):
    inputs, lengths = batch([1, 2, 3, 4, 5, 6])
    for t in range(5):
        changed = inputs.clone()
        changed[0, t + 1] = 20
        before, after = sasrec(inputs, lengths)[0], sasrec(changed, lengths)[0]
        torch.testing.assert_close(after[: t + 1], before[: t + 1], rtol=0, atol=1e-6)
        assert (after[t + 1] - before[t + 1]).abs().max() > 1e-2


def test_order_of_the_history_matters(sasrec):
    scores = sasrec.score(*batch([1, 2, 3], [2, 1, 3]))
    assert (scores[0] - scores[1]).abs().max() > 1e-3


def test_scores_are_inner_products_with_the_item_table(sasrec):
    inputs, lengths = batch(*HISTORIES)
    states = sasrec(inputs, lengths)
    items = torch.tensor([[3, 5], [0, 1], [2, 2], [29, 0]])
    some = sasrec.score(inputs, lengths, items)
    for row, length in enumerate(lengths):
        expected = sasrec.item_embeddings()[items[row]] @ states[row, length - 1]
        torch.testing.assert_close(some[row], expected)
    torch.testing.assert_close(some, sasrec.score(inputs, lengths).gather(1, items))


def test_scoring_turns_dropout_off_and_gives_the_mode_back(sasrec):
    inputs, lengths = batch(*HISTORIES)
    expected = sasrec.score(inputs, lengths)
    sasrec.train()
    torch.testing.assert_close(sasrec.score(inputs, lengths), expected)
    sasrec.forward_sequences(inputs, lengths)
    assert sasrec.training
    assert not torch.equal(sasrec(inputs, lengths), sasrec(inputs, lengths)), "training mode drops out"


def test_dropout_keeps_the_mean(sasrec):
    dropout = sasrec.dropout.train()
    dropped_out = dropout(torch.ones(100_000))
    assert set(dropped_out.unique().tolist()) == {0.0, 2.0}
    assert abs(dropped_out.mean().item() - 1.0) < 0.02


def test_meets_the_layered_protocol(sasrec):
    assert isinstance(sasrec, LayeredModel)
    assert (sasrec.name, sasrec.is_causal) == ("sasrec", True)
    layers = sasrec.layers()
    assert [(name, state) for name, state, _ in layers] == [
        ("embed", "embed"),
        ("block 1", "block"),
        ("block 2", "block"),
        ("final_norm", "final_norm"),
    ]
    seen = {}
    hooks = [layers[0][2].register_forward_pre_hook(lambda _, args: seen.update(embed=args[0]))]
    hooks += [m.register_forward_hook(lambda _, a, out, n=n: seen.update({n: out})) for n, _, m in layers[1:]]
    inputs, lengths = batch(*HISTORIES)
    states = sasrec.forward_sequences(inputs, lengths)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(seen["embed"], sasrec.items(inputs) + sasrec.positions.weight[: inputs.shape[1]])
    torch.testing.assert_close(sasrec.final_norm(seen["block 2"]), states)
    torch.testing.assert_close(seen["final_norm"], states)
    assert all(s.shape == (4, 7, 8) for s in seen.values())


def test_save_and_load_round_trip(sasrec, tmp_path):
    loaded = SASRec.from_pretrained(sasrec.save_pretrained(tmp_path / "model"))
    assert loaded.config == sasrec.config
    assert loaded.revision == sasrec.revision
    assert not loaded.training
    torch.testing.assert_close(loaded.score(*batch(*HISTORIES)), sasrec.score(*batch(*HISTORIES)), rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_revision_follows_the_weights(sasrec):
    before = sasrec.revision
    with torch.no_grad():
        sasrec.items.weight[0, 0] += 1e-3
    assert sasrec.revision != before
    assert len(before) == 12


def test_seed_draws_the_weights_and_spares_the_global_generator():
    config = SASRecConfig(n_items=5, n_features=4, n_inner=4)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = SASRec(config, seed=7)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert first.revision == SASRec(config, seed=7).revision
    assert first.revision != SASRec(config, seed=8).revision


def test_loading_refuses_what_is_damaged(sasrec, tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        SASRec.from_pretrained(tmp_path / "none")
    folder = sasrec.save_pretrained(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_head": 1}))
    with pytest.raises(ModelError, match="Did you mean 'n_heads'"):
        SASRec.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "n_items": 31}))
    with pytest.raises(ModelError, match="do not fit"):
        SASRec.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "model": "bert4rec"}))
    with pytest.raises(ModelError, match="does not describe a sasrec"):
        SASRec.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        SASRec.from_pretrained(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_items": 0}, "n_items must be a whole number of at least 1; got 0"),
        ({"n_items": 5, "n_heads": 3}, "n_heads must divide n_features"),
        ({"n_items": 5, "dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"n_items": 5, "n_blocks": 1.5}, r"n_blocks .* got 1\.5"),
        ({"n_items": 5, "max_lenght": 3}, "Did you mean 'max_length'"),
        ({"max_length": 3}, "n_items"),
    ],
)
def test_config_checks_itself(settings, message):
    with pytest.raises(ConfigError, match=message):
        SASRecConfig.from_dict(settings)


def test_refuses_batches_that_break_the_contract(sasrec):
    with pytest.raises(ShapeError, match="at most 10 items; got 11"):
        sasrec(*batch(list(range(11))))
    with pytest.raises(ShapeError, match="Leave out empty"):
        sasrec(torch.zeros(2, 3, dtype=torch.long), torch.tensor([0, 3]))
    with pytest.raises(ShapeError, match=r"lengths \(3,\)"):
        sasrec(torch.zeros(2, 3, dtype=torch.long), torch.tensor([1, 2, 3]))
    with pytest.raises(DataError, match="seen 0…30"):
        sasrec(*batch([0, 30]))


def test_item_table_is_one_row_per_item(sasrec):
    table = sasrec.item_embeddings().detach().numpy()
    assert table.shape == (30, 8)
    assert np.unique(table, axis=0).shape == table.shape


@pytest.mark.parametrize(("loss", "n_negatives", "n_items"), [("bce", None, 30), ("gbce", 4, 30), ("gbce", None, 20)])
def test_losses_against_a_loop_over_targets(loss, n_negatives, n_items):
    """Scores of gBCE are lowered by log k, a common item bias, and its sum is divided by the terms of a target."""
    config = SASRecConfig(n_items=n_items, max_length=8, n_features=8, n_inner=8, loss=loss, n_negatives=n_negatives)
    model = SASRec(config, seed=1).eval()
    k = {"bce": 1, "gbce": n_negatives or n_items - 1}[loss]
    assert config.negatives_per_target == k
    histories = [[4, 9, 2, 7], [0, 1, 2, 3, 4, 5]]
    log = Interactions.from_sequences([np.array(h) for h in histories], n_items=n_items)
    samples = Samples([np.array(h) for h in histories], np.arange(2), log.user_items)
    prepared = make_batch(samples, "every", torch.device("cpu"))
    total, n_targets = model.training_loss(prepared, torch.Generator().manual_seed(3))
    negatives = draw_unseen(prepared, k, torch.Generator().manual_seed(3)).tolist()
    states, table = model(prepared.inputs, prepared.lengths).tolist(), model.item_embeddings().tolist()
    beta = gbce_beta(k, n_items, 0.75) if loss == "gbce" else 1.0
    expected = 0.0
    for number, (row, position) in enumerate(prepared.counts.nonzero().tolist()):

        def probability(item, state=states[row][position]):
            score = sum(a * b for a, b in zip(state, table[item], strict=True)) - (math.log(k) if loss == "gbce" else 0)
            return 1 / (1 + math.exp(-score))

        terms = -beta * math.log(probability(histories[row][position + 1]))
        terms -= sum(math.log(1 - probability(item)) for item in negatives[number])
        expected += terms / (k + 1 if loss == "gbce" else 1)
    assert n_targets == 8
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_many_negatives_do_not_draw_every_state_into_one_direction():
    """Over a tied table they would, were the scores not lowered: the states of different histories stay different."""
    config = SASRecConfig(n_items=200, max_length=8, n_features=16, n_inner=16, dropout=0.1, loss="gbce")
    rng = np.random.default_rng(0)
    walks = [(rng.integers(0, 200) + np.arange(9)) % 200 for _ in range(120)]
    dataset = Dataset.from_interactions(Interactions.from_sequences(walks, n_items=200))
    model = SASRec(config)
    train(model, dataset, TrainingConfig(n_epochs=20, batch_size=16, learning_rate=3e-3, validate_every=20))
    inputs, lengths = batch(*([int(i)] for i in range(0, 200, 5)))
    states = model.forward_sequences(inputs, lengths)[:, 0]
    share_in_mean = float(states.mean(0).norm() ** 2 / states.square().sum(1).mean())
    assert share_in_mean < 0.9


def test_a_model_may_have_no_final_norm_or_no_layers(sasrec):
    names = [name for name, _, _ in sasrec.layers()]
    assert names == ["embed", "block 1", "block 2", "final_norm"]
    sasrec.final_norm = None
    assert [name for name, _, _ in sasrec.layers()] == names[:-1]
    sasrec.traits = Traits(why_no_layers="a toy")
    assert sasrec.layers() == []
