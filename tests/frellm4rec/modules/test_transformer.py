import pytest
import torch

from frellm4rec.modules.transformer import Dropout, FeedForward, MultiHeadAttention, causal_mask


@pytest.mark.parametrize("n_heads", [1, 2, 3])
def test_a_single_reader_reads_what_its_row_reads(n_heads):
    generator = torch.Generator().manual_seed(0)
    attention = MultiHeadAttention(6, n_heads=n_heads, dropout=0.5).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    states, lengths = torch.randn(3, 5, 6, generator=generator), torch.tensor([5, 1, 3])
    rows = torch.arange(3)
    every = attention(states, causal_mask(5, states.device))[rows, lengths - 1]
    alone = attention.read_by(states[rows, lengths - 1], states, torch.arange(5) < lengths[:, None])
    torch.testing.assert_close(alone, every, rtol=1e-4, atol=1e-4)
    weights = [parameter for name, parameter in attention.named_parameters() if name != "key.bias"]
    expected, got = (torch.autograd.grad(x.square().sum(), weights) for x in (every, alone))
    for one_way, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one_way, other, rtol=1e-3, atol=1e-3)


def test_a_single_reader_drops_weights_as_its_row_does():
    """In training mode the mean over many rows is that of evaluation mode, also of the bias of the values."""
    generator = torch.Generator().manual_seed(0)
    attention = MultiHeadAttention(4, n_heads=2, dropout=0.5)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    states = torch.randn(1, 5, 4, generator=generator).expand(20_000, -1, -1)
    batch = states[:, 0], states, torch.ones(20_000, 5, dtype=torch.bool)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = attention.train().read_by(*batch)
    assert dropped.std(0).min() > 0.05
    torch.testing.assert_close(dropped.mean(0), attention.eval().read_by(*batch)[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("drops_inner", [True, False])
def test_dropout_between_the_maps_is_a_choice(drops_inner):
    inner = FeedForward(2, n_inner=50, dropout=0.5, drops_inner=drops_inner).train()
    seen = []
    inner.inner_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inner(torch.ones(20, 2))
    assert (seen[0] == 0).any() == drops_inner


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_sets_states_to_0_and_scales_the_others(dtype):
    """Beside the plain form, with the same draws: values and gradients are equal to the bit."""
    states = torch.randn(16, 7, 24, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    torch.manual_seed(1)
    dropped_out = Dropout(0.2)(states)
    torch.manual_seed(1)
    scale = torch.where(torch.rand(states.shape) < 0.2, 0.0, 1.0 / 0.8).to(dtype)
    assert dropped_out.dtype == dtype
    assert torch.equal(dropped_out, states * scale)
    dropped_out.sum().backward()
    assert torch.equal(states.grad, scale)
    assert 0.15 < float((scale == 0).float().mean()) < 0.25
    assert Dropout(0.2).eval()(states) is states
