"""From ID and text to one vector: Eq. (2) and the gated sum of the published code."""

import math

import numpy as np
import pytest
import torch

from frellm4rec.modules import FusionMLP, GatedFusion
from frellm4rec.modules.fusion import FUSIONS
from spectral_probe.errors import ConfigError


def sources(n=7, widths=(3, 5)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, width, generator=generator, dtype=torch.float64) for width in widths]


def test_the_mlp_is_equation_2():
    ids, texts = sources()
    fusion = FusionMLP([3, 5], 4).double().eval()
    joined = np.concatenate([ids, texts], axis=1)
    first, second = fusion.hidden, fusion.out
    hidden = joined @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    activated = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    expected = activated @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    np.testing.assert_allclose(fusion(ids, texts).detach(), expected, atol=1e-12)


def test_the_gated_sum_lies_between_its_projections():
    ids, texts = sources()
    fusion = GatedFusion([3, 5], 4).double().eval()
    p, q = fusion.projections[0](ids), fusion.projections[1](texts)
    g = 1 / (1 + torch.exp(-fusion.gate(torch.cat([p, q], dim=1))))
    np.testing.assert_allclose(fusion(ids, texts).detach(), (g * p + (1 - g) * q).detach(), atol=1e-12)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        for bias, whole in ((60.0, p), (-60.0, q)):
            fusion.gate.bias.fill_(bias)
            np.testing.assert_allclose(fusion(ids, texts), whole, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_one_source_is_enough_and_any_leading_shape_will_do(name):
    ids = sources()[0]
    fusion = FUSIONS[name]([3], 4).double().eval()
    alone = fusion(ids)
    assert alone.shape == (7, 4)
    torch.testing.assert_close(fusion(ids.reshape(7, 1, 3))[:, 0], alone)
    if name == "gate":
        torch.testing.assert_close(alone, fusion.projections[0](ids))


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_every_parameter_learns(name):
    fusion = FUSIONS[name]([3, 5], 4).double()
    fusion(*sources()).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in fusion.parameters())


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_dropout_acts_in_training_only(name):
    fusion = FUSIONS[name]([3, 5], 4, dropout=0.5).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(fusion(*sources()), fusion(*sources()))
    fusion.eval()
    assert torch.equal(fusion(*sources()), fusion(*sources()))


def test_the_width_between_the_layers_can_be_chosen():
    assert FusionMLP([3, 5], 4, n_hidden=9).hidden.out_features == 9
    assert FusionMLP([3, 5], 4).hidden.out_features == 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FusionMLP([], 4), "at least one source"),
        (lambda: GatedFusion([], 4), "at least one source"),
        (lambda: FusionMLP([3], 4, dropout=1.0), r"\[0, 1\); got 1\.0"),
        (lambda: GatedFusion([3, 5, 2], 4), "joins two sources"),
        (lambda: GatedFusion([3, 5], 4, n_hidden=8), "no hidden layer"),
    ],
)
def test_what_cannot_be_fused_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
