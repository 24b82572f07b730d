import pytest
import torch
from torch.nn.functional import layer_norm

from frellm4rec.experiments.paper import paper_numbers
from frellm4rec.models import BSARec, BSARecConfig
from frellm4rec.models.bsarec import GROUP_ROWS
from frellm4rec.modules.transformer import PostNormBlock
from frellm4rec.runs.defaults import model_defaults
from spectral_probe.errors import ConfigError
from tests.frellm4rec.tiny_recommenders import padded

SMALL = {"n_items": 20, "max_length": 7, "n_features": 6, "n_inner": 10, "n_heads": 2}
HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [19], [7, 7, 0, 12, 3]]


def build(**settings):
    """A model with weights so large that every part matters."""
    model = BSARec(BSARecConfig.from_dict({**SMALL, **settings})).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return model


def test_number_of_parameters():
    """Items 182,300, positions 2,500, a norm 100; each block 10,200 of the attention, 50 of β, 20,250 and 300."""
    model = BSARec(BSARecConfig(n_items=3646))
    assert sum(p.numel() for p in model.blocks[0].attention.parameters()) == 10_200
    assert model.blocks[0].rescaler.beta.shape == (50,)
    assert sum(p.numel() for p in model.parameters()) == 246_500


def test_weights_are_drawn_as_published():
    model = BSARec(BSARecConfig(n_items=3646), seed=4)
    for name, parameter in model.named_parameters():
        if name.endswith("beta"):
            assert 0.7 < float(parameter.std()) < 1.3
        elif "norm" in name or name.endswith("bias"):
            assert parameter.unique().tolist() == [float("norm.weight" in name)], name
        else:
            assert abs(float(parameter.std()) - 0.02) < 0.002, name


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_without_the_rescaling_it_is_a_sasrec_with_norms_after_the_residuals(n_blocks):
    """At α 0, on an explicit right-aligned frame whose padding is hidden from the attention."""
    model = build(alpha=0.0, n_blocks=n_blocks)
    n_frame, n_rows = 7, len(HISTORIES)
    items, is_item = torch.zeros(n_rows, n_frame, dtype=torch.long), torch.zeros(n_rows, n_frame, dtype=torch.bool)
    for row, history in enumerate(HISTORIES):
        items[row, n_frame - len(history) :] = torch.tensor(history)
        is_item[row, n_frame - len(history) :] = True
    states = model.norm(model.items(items) + model.positions.weight)
    is_visible = torch.ones(n_frame, n_frame, dtype=torch.bool).tril() & is_item[:, None]
    for block in model.blocks:
        sasrec = PostNormBlock(6, n_heads=2, n_inner=10, dropout=0.5).eval()
        parts = {name: t for name, t in block.state_dict().items() if not name.startswith("rescaler")}
        sasrec.load_state_dict(parts)
        states = sasrec(states, is_visible)
    inputs, lengths = padded(*HISTORIES)
    aligned = model(inputs, lengths)
    for row, history in enumerate(HISTORIES):
        torch.testing.assert_close(
            aligned[row, : len(history)], states[row, n_frame - len(history) :], rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(model.last_states(inputs, lengths), states[:, -1], rtol=1e-4, atol=1e-5)


def test_without_the_rescaling_earlier_states_do_not_see_later_items():
    model = build(alpha=0.0)
    inputs, lengths = padded(HISTORIES[1])
    changed = inputs.clone()
    changed[0, 4:] = 13
    torch.testing.assert_close(model(changed, lengths)[0, :4], model(inputs, lengths)[0, :4])
    assert (model(changed, lengths) - model(inputs, lengths))[0, 4:].abs().min(0).values.max() > 1e-2


@pytest.mark.parametrize("c", [7, 8, 50])
def test_where_all_frequencies_are_low_a_block_is_blind_to_beta(c):
    """F = LN(2x) then, and at α 1 no position reads another."""
    model = build(alpha=1.0, c=c, n_blocks=1)
    inputs, lengths = padded(HISTORIES[1])
    block = model.blocks[0]
    embedded, _ = model.embed(inputs, lengths)
    doubled = layer_norm(2 * embedded, (6,), block.rescaler_norm.weight, block.rescaler_norm.bias)
    expected = block.inner_norm(doubled + block.inner(doubled))
    torch.testing.assert_close(model(inputs, lengths), expected, rtol=1e-4, atol=1e-5)


def test_the_sign_of_beta_has_no_effect():
    model, batch = build(), padded(*HISTORIES)
    before = model.score(*batch)
    with torch.no_grad():
        for block in model.blocks:
            block.rescaler.beta.neg_()
    torch.testing.assert_close(model.score(*batch), before)
    with torch.no_grad():
        model.blocks[0].rescaler.beta.mul_(2)
    assert not torch.allclose(model.score(*batch), before, atol=1e-2)


def test_groups_of_rows_change_nothing():
    """A batch of more rows than a group, of mixed lengths."""
    model, generator = build(), torch.Generator().manual_seed(0)
    histories = [
        torch.randint(0, 20, (1 + row % 7,), generator=generator).tolist() for row in range(2 * GROUP_ROWS + 3)
    ]
    together = model.forward_sequences(*padded(*histories))
    for row in (0, 1, 50, 70, 130):
        alone = model.forward_sequences(*padded(histories[row]))[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 4}, "n_heads must divide n_features; got n_heads=4, n_features=50"),
        ({"n_heads": 0}, "n_heads must be a whole number of at least 1; got 0"),
        ({"alpha": 1.1}, r"alpha must lie in \[0, 1\]; got 1\.1"),
        ({"alpha": "high"}, "got 'high'"),
        ({"c": 0}, "c must be a whole number of at least 1; got 0"),
        ({"c": 3.0}, r"got 3\.0"),
    ],
)
def test_config_checks_itself(settings, message):
    with pytest.raises(ConfigError, match=message):
        BSARecConfig.from_dict({"n_items": 5, **settings})


def test_the_own_loss_is_the_softmax():
    assert BSARecConfig(n_items=5).loss == "softmax"
    assert BSARec(BSARecConfig(n_items=5)).has_softmax_loss
    assert not BSARec(BSARecConfig(n_items=5, loss="bce")).has_softmax_loss


def test_the_title_is_that_of_the_paper():
    assert model_defaults("bsarec").title in set(paper_numbers()["model"])
