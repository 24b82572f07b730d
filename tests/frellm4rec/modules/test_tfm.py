"""TFM: the operator on a batch, and its hooks on decoders of every family."""

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from hypothesis import given, settings
from hypothesis import strategies as st

from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.modules import TemporalFrequencyModulation, causal_operator, two_sided_operator
from frellm4rec.modules.tfm import MODES
from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import ConfigError, ModelError, ShapeError
from spectral_probe.recording.capture import capture
from spectral_probe.recording.hooks import LayerRecorder
from tests.spectral_probe.tiny_models import CONFIGS, N_BLOCKS, N_ITEMS, WIDTH, Toy, n_hooks, tiny

TFM = TemporalFrequencyModulation
LENGTHS = torch.tensor([5, 1, 9, 2])
families = pytest.mark.parametrize("family", sorted(CONFIGS))
modes = pytest.mark.parametrize("mode", MODES)


def batch(dtype=torch.float64, T=9, width=6, seed=0):
    return torch.randn(len(LENGTHS), T, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def decoder(family, **changes):
    table = np.random.default_rng(0).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    return HFDecoder(tiny(family, **changes), table)


def items(T=9):
    return torch.from_numpy(np.random.default_rng(3).integers(0, N_ITEMS, size=(len(LENGTHS), T)))


class Blocks:
    """Keep what every block reads and what it hands on, as any other hook would."""

    def __init__(self, model):
        self.inputs, self.outputs, self.handles = {}, {}, []
        blocks = [module for _, state, module in model.layers() if state == "block"]
        for number, block in enumerate(blocks, start=1):
            self.handles.append(block.register_forward_pre_hook(self._before(number), with_kwargs=True))
            self.handles.append(block.register_forward_hook(self._after(number)))

    def _before(self, number):
        def hook(module, args, kwargs):
            self.inputs[number] = (args or (kwargs["hidden_states"],))[0].detach().clone()

        return hook

    def _after(self, number):
        def hook(module, args, output):
            self.outputs[number] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return hook

    def remove(self):
        for handle in self.handles:
            handle.remove()


# On a batch


@modes
def test_a_ragged_batch_equals_one_by_one(mode):
    states, tfm = batch(), TFM(0.3, mode=mode)
    filtered = tfm(states, LENGTHS)
    build = causal_operator if mode == "causal" else two_sided_operator
    for row, n in enumerate(LENGTHS.tolist()):
        np.testing.assert_allclose(filtered[row, :n], build(n, 0.3) @ states[row, :n], atol=1e-12)
        assert torch.equal(filtered[row, n:], states[row, n:])
        alone = TFM(0.3, mode=mode)(states[row : row + 1, :n], LENGTHS[row : row + 1])
        torch.testing.assert_close(filtered[row : row + 1, :n], alone, atol=1e-12, rtol=0)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.sampled_from(MODES), st.integers(0, 4))
@settings(deadline=None)
def test_neither_padding_nor_order_of_the_batch_matters(lengths, mode, more):
    lengths = torch.tensor(lengths)
    states = torch.randn(len(lengths), 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tfm = TFM(0.3, mode=mode)
    filtered = tfm(states, lengths)
    wider = torch.cat([states, torch.full((len(lengths), more, 3), 9.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(tfm(wider, lengths)[:, :7], filtered, atol=1e-12, rtol=0)
    torch.testing.assert_close(tfm(states.flip(0), lengths.flip(0)).flip(0), filtered, atol=1e-12, rtol=0)


@modes
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_stands_in_the_padding_never_leaks(mode, poison):
    clean, tfm = batch(), TFM(0.3, mode=mode)
    is_valid = torch.arange(9) < LENGTHS[:, None]
    poisoned = clean.masked_fill(~is_valid[..., None], poison).requires_grad_()
    filtered = tfm(poisoned, LENGTHS)
    assert torch.equal(filtered[is_valid], tfm(clean, LENGTHS)[is_valid])
    filtered[is_valid].square().sum().backward()
    assert torch.isfinite(poisoned.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_cutoff_of_none_is_the_identity_to_the_bit(dtype):
    states = batch(dtype)
    assert torch.equal(TFM(None)(states, LENGTHS), states)
    assert TFM(None).operator(4).equal(torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@modes
def test_the_dtype_stays_and_bf16_is_near(mode, dtype):
    states, tfm = batch(), TFM(0.3, mode=mode)
    filtered = tfm(states.to(dtype), LENGTHS)
    assert filtered.dtype == dtype
    np.testing.assert_allclose(filtered.double(), tfm(states, LENGTHS), atol=5e-2 if dtype == torch.bfloat16 else 1e-5)


@modes
def test_causality_by_mode(mode):
    states, tfm = batch(), TFM(0.3, mode=mode)
    later = states.clone()
    later[2, 6] += 1.0
    moved = (tfm(later, LENGTHS) - tfm(states, LENGTHS))[2].abs().sum(1)
    assert moved[6] > 0.1
    assert bool((moved[:6] > 1e-6).any()) == (mode != "causal")
    assert tfm.is_causal == (mode == "causal")
    assert TFM(None, mode=mode).is_causal


def test_the_stack_kept_for_the_next_block_is_not_kept_for_another_batch():
    tfm, states = TFM(0.3), batch()
    first = tfm(states, LENGTHS)
    tfm(states, LENGTHS.flip(0))
    tfm(states[:, :9].float(), LENGTHS)
    assert torch.equal(tfm(states, LENGTHS), first)


@pytest.mark.parametrize("n_layers", [None, 3])
@modes
def test_the_gradients_of_a_learnable_cutoff_equal_finite_differences(mode, n_layers):
    tfm = TFM(0.3, mode=mode, learnable=True, n_layers=n_layers).double()
    states, weight = batch(), batch(seed=5)

    def loss():
        return (weight * tfm(tfm(states, LENGTHS, 1), LENGTHS, 2)).sum()

    assert tfm.cutoffs().tolist() == pytest.approx([0.3] * (n_layers or 1), abs=1e-6)
    loss().backward()
    slopes = tfm.logit.grad.clone()
    for index in range(len(slopes)):
        with torch.no_grad():
            ends = []
            for step in (-1e-5, 2e-5):
                tfm.logit[index] += step
                ends.append(float(loss()))
            tfm.logit[index] -= 1e-5
        assert float(slopes[index]) == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-5, abs=1e-7)
    assert (slopes != 0).tolist() == ([True] if n_layers is None else [True, True, False])


def test_a_fixed_cutoff_has_nothing_to_learn_or_save():
    assert not list(TFM(0.3).parameters())
    assert not TFM(0.3).state_dict()
    assert TFM(0.3).cutoffs() is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutoff": 1.5}, "got 1.5"),
        ({"mode": "casual"}, "Did you mean 'causal'"),
        ({"layers": [0]}, "from 1 on"),
        ({"layers": []}, "from 1 on"),
        ({"cutoff": None, "learnable": True}, "starts inside"),
        ({"cutoff": 1.0, "learnable": True}, "starts inside"),
    ],
)
def test_settings_out_of_range_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        TFM(**options)


@pytest.mark.parametrize(
    ("lengths", "says"),
    [([5, 1, 9], "with .batch,. lengths"), ([5, 0, 9, 2], r"must lie in 1…9; got \[0"), ([5, 1, 10, 2], "1…9")],
)
def test_lengths_that_do_not_fit_are_refused(lengths, says):
    with pytest.raises(ShapeError, match=says):
        TFM(0.3)(batch(), torch.tensor(lengths))


# On decoders


@families
@pytest.mark.parametrize("mode", ["prefix", "causal"])
def test_every_block_hands_on_filtered_states(family, mode):
    model = decoder(family)
    tfm = TFM(0.3, mode=mode)
    plain, filtered = Blocks(model), None
    model.forward_sequences(items(), LENGTHS)
    plain.remove()
    with tfm.attach(model):
        filtered = Blocks(model)
        model.forward_sequences(items(), LENGTHS)
        filtered.remove()
    # Block 1 reads the same with and without the filter, so its output is filtered once.
    is_valid = torch.arange(9) < LENGTHS[:, None]
    expected = tfm(plain.outputs[1], LENGTHS)
    torch.testing.assert_close(filtered.outputs[1][is_valid], expected[is_valid], atol=1e-5, rtol=1e-5)
    assert (filtered.outputs[1] - plain.outputs[1])[is_valid].abs().max() > 1e-2
    for number in range(1, N_BLOCKS):
        assert torch.equal(filtered.outputs[number], filtered.inputs[number + 1])
    assert n_hooks(model) == 0


@pytest.mark.parametrize("family", [*sorted(CONFIGS), "mamba", "mixtral", "mpt", "openai-gpt", "opt"])
def test_the_state_recorded_of_block_i_is_what_block_i_plus_1_reads(family):
    """The recorder of the instrument, attached before the filter or after it."""
    model, grams_by_order = decoder(family), {}
    kinds = [layer for layer in model.layers() if layer[1] == "block"]
    reads = [("embed", "embed", block) for _, _, block in kinds]
    for order in ("filter first", "recorder first"):
        recorder = LayerRecorder(model, [*kinds, *reads])
        if order == "filter first":
            with TFM(0.3, mode="causal").attach(model), recorder:
                grams_by_order[order] = recorder.grams(items(), LENGTHS)[0]
        else:
            with recorder, TFM(0.3, mode="causal").attach(model):
                grams_by_order[order] = recorder.grams(items(), LENGTHS)[0]
    assert torch.equal(*grams_by_order.values())
    outputs, inputs = grams_by_order["filter first"].split(N_BLOCKS)
    assert torch.equal(outputs[:-1], inputs[1:])
    with recorder:
        assert not torch.allclose(recorder.grams(items(), LENGTHS)[0, 0], outputs[0], rtol=1e-2)


@families
def test_hooks_come_off_also_after_an_exception(family):
    model = decoder(family)
    before = model.forward_sequences(items(), LENGTHS)
    handle = TFM(0.3).attach(model)
    assert n_hooks(model) == N_BLOCKS + 1
    assert not torch.allclose(model.forward_sequences(items(), LENGTHS), before)
    handle.remove()
    handle.remove()
    assert n_hooks(model) == 0
    with pytest.raises(ZeroDivisionError), TFM(0.3).attach(model):
        1 / 0  # noqa: B018
    assert n_hooks(model) == 0
    assert torch.equal(model.forward_sequences(items(), LENGTHS), before)


def test_hooks_come_off_when_one_of_them_cannot_be_put_on(monkeypatch):
    model = decoder("llama")
    monkeypatch.setattr(model.layers()[-2][2], "register_forward_hook", None)
    with pytest.raises(TypeError):
        TFM(0.3).attach(model)
    assert n_hooks(model) == 0


def test_off_puts_no_hook_on():
    model = decoder("qwen2")
    with TFM(None).attach(model):
        assert n_hooks(model) == 0


@families
def test_layers_filters_only_these(family):
    model = decoder(family)
    plain = Blocks(model)
    model.forward_sequences(items(), LENGTHS)
    plain.remove()
    with TFM(0.3, layers=[2]).attach(model):
        assert n_hooks(model) == 2
        partly = Blocks(model)
        model.forward_sequences(items(), LENGTHS)
        partly.remove()
    is_valid = torch.arange(9) < LENGTHS[:, None]
    torch.testing.assert_close(partly.outputs[1], plain.outputs[1])
    expected = TFM(0.3)(plain.outputs[2], LENGTHS)
    torch.testing.assert_close(partly.outputs[2][is_valid], expected[is_valid], atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match=rf"has {N_BLOCKS} blocks; layers names \[{N_BLOCKS + 1}\]"):
        TFM(0.3, layers=[N_BLOCKS + 1]).attach(model)
    assert n_hooks(model) == 0


@families
def test_bf16(family):
    model = decoder(family)
    with TFM(0.3).attach(model):
        exact = model.forward_sequences(items(), LENGTHS)
        model.to(torch.bfloat16)
        rounded = model.forward_sequences(items(), LENGTHS)
    assert rounded.dtype == torch.bfloat16
    is_valid = torch.arange(9) < LENGTHS[:, None]
    similarity = torch.cosine_similarity(rounded[is_valid].float(), exact[is_valid], dim=1)
    assert similarity.min() > 0.97


@families
def test_gradient_checkpointing_gives_the_same_gradients(family):
    model, gradients = decoder(family), {}
    vectors = model.item_embeddings[items()]
    mask = (torch.arange(9) < LENGTHS[:, None]).long()
    tfm, n_runs = TFM(0.3, mode="causal", learnable=True, n_layers=N_BLOCKS), []
    part = next(module for module in model.layers()[2][2].modules() if not list(module.children()))
    part.register_forward_hook(lambda module, args, output: n_runs.append(1))
    with tfm.attach(model):
        for name in ("without", "with"):
            if name == "with":
                n_runs.clear()
                model.model.gradient_checkpointing_enable({"use_reentrant": False})
            model.model.train()
            inputs = vectors.clone().requires_grad_()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model.model(inputs_embeds=inputs, attention_mask=mask, use_cache=False)[0].square().sum().backward()
            gradients[name] = [inputs.grad, tfm.logit.grad.clone()]
            tfm.logit.grad = None
    assert len(n_runs) == 2  # once on the way forward, once when recomputed
    for without, same in zip(*gradients.values(), strict=True):
        assert without.abs().max() > 0
        torch.testing.assert_close(same, without, rtol=1e-4, atol=1e-5)


def test_a_spread_model_gives_the_same_states():
    whole = decoder("llama")
    with TFM(0.3).attach(whole):
        expected = whole.forward_sequences(items(), LENGTHS)
    spread = HFDecoder(cpu_offload(tiny("llama"), execution_device="cpu"), whole.item_embeddings)
    assert spread.is_spread
    before = n_hooks(spread)
    with TFM(0.3).attach(spread):
        assert torch.equal(spread.forward_sequences(items(), LENGTHS), expected)
    assert n_hooks(spread) == before


@families
@pytest.mark.parametrize("mode", ["prefix", "causal"])
def test_neither_batch_mates_nor_padding_reach_a_filtered_state(family, mode):
    model, inputs = decoder(family), items()
    with TFM(0.3, mode=mode).attach(model):
        together = model.forward_sequences(inputs, LENGTHS)
        for row, n in enumerate(LENGTHS.tolist()):
            alone = model.forward_sequences(inputs[row : row + 1, :n], LENGTHS[row : row + 1])
            torch.testing.assert_close(together[row, :n], alone[0], atol=1e-4, rtol=1e-4)


@families
def test_a_causal_filter_leaves_the_past_of_a_decoder_alone(family):
    model, inputs = decoder(family), items()
    later = inputs.clone()
    later[2, 6] = (later[2, 6] + 1) % N_ITEMS
    for mode in MODES:
        with TFM(0.3, mode=mode).attach(model):
            moved = (model.forward_sequences(later, LENGTHS) - model.forward_sequences(inputs, LENGTHS))[2].abs()
        assert moved[6].max() > 1e-2
        assert bool(moved[:6].max() > 1e-3) == (mode != "causal"), mode
        if mode == "causal":
            assert moved[:6].max() < 1e-5


def test_the_instrument_captures_filtered_states():
    model, lengths = decoder("qwen2"), LENGTHS.numpy()
    plain = capture(model, items().numpy(), lengths)
    with TFM(0.3, mode="causal", layers=[N_BLOCKS]).attach(model):
        filtered = capture(model, items().numpy(), lengths)
    np.testing.assert_array_equal(filtered.grams[:, :N_BLOCKS], plain.grams[:, :N_BLOCKS])
    M = causal_operator(9, 0.3).numpy()
    np.testing.assert_allclose(
        filtered.grams[2, N_BLOCKS], M @ plain.grams[2, N_BLOCKS].astype(float) @ M.T, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("returns_tuple", [False, True])
def test_any_layered_module_and_blocks_that_return_tuples(returns_tuple):
    class Layered(Toy):
        def forward(self, inputs, lengths):
            return Toy.forward_sequences(self, inputs, lengths)

        def forward_sequences(self, inputs, lengths):
            return self(inputs, lengths)

    model = Layered(returns_tuple=returns_tuple)
    with TFM(0.3).attach(model):
        recorded = Blocks(model)
        model.forward_sequences(items(), LENGTHS)
        recorded.remove()
    is_valid = torch.arange(9) < LENGTHS[:, None]
    with torch.no_grad():
        plain = model.blocks[0](recorded.inputs[1], is_valid)
    plain = plain[0] if returns_tuple else plain
    torch.testing.assert_close(recorded.outputs[1][is_valid], TFM(0.3)(plain, LENGTHS)[is_valid])
    assert torch.equal(recorded.outputs[1], recorded.inputs[2])


def test_our_own_recommender_can_carry_it():
    model = SASRec(SASRecConfig(n_items=N_ITEMS, max_length=10, n_features=8, n_heads=2, n_inner=16), seed=3).eval()
    before = model.forward_sequences(items(), LENGTHS)
    with TFM(0.3, mode="causal").attach(model):
        assert not torch.allclose(model.forward_sequences(items(), LENGTHS), before)
    assert n_hooks(model) == 0


@families
@pytest.mark.parametrize(
    "mask", [[[1, 0, 1, 1]], [[0, 1, 1, 1]], [[0, 0, 0, 0]]], ids=["a gap", "padded on the left", "empty"]
)
def test_masks_that_are_no_lengths_are_refused(family, mask):
    model = decoder(family)
    with TFM(0.3).attach(model), pytest.raises(ShapeError, match=r"mask has gaps|must lie in 1…4"):
        model.model(inputs_embeds=torch.zeros(1, 4, WIDTH), attention_mask=torch.tensor(mask), use_cache=False)


def test_a_forward_pass_without_a_mask_is_refused():
    model = decoder("llama")
    with TFM(0.3).attach(model), pytest.raises(ShapeError, match="Pass a mask of ones"):
        model.model(inputs_embeds=torch.zeros(1, 4, WIDTH))
    model = decoder("gpt2")  # its blocks run without position embeddings
    with TFM(0.3).attach(model), pytest.raises(ModelError, match="ran outside its model"):
        model.layers()[0][2](torch.zeros(1, 4, WIDTH))


def test_what_is_no_module_is_refused():
    class NoModule:
        name, is_causal = "nothing", True

        def layers(self):
            return [("block 1", "block", torch.nn.Linear(2, 2))]

    with pytest.raises(ModelError, match="'nothing' is not a torch module"):
        TFM(0.3).attach(NoModule())
