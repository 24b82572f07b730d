"""What the forward passes of a capture show a model, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import ModelError, NonFiniteStateError
from spectral_probe.recording.capture import capture
from tests.spectral_probe.recording.conftest import item_table
from tests.spectral_probe.tiny_models import Toy, n_hooks, tiny


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_model_is_never_handed_what_lies_beyond_a_length(prefixes, sequences):
    class Witness(Toy):
        def forward_sequences(self, inputs, lengths):
            assert not inputs[torch.arange(inputs.shape[1]) >= lengths[:, None]].any()
            assert inputs.shape[1] == lengths.max()
            return super().forward_sequences(inputs, lengths)

    before = sequences[0].copy()
    capture(Witness(), *sequences, prefixes=prefixes)
    np.testing.assert_array_equal(sequences[0], before)


def test_an_encoder_that_is_not_causal_is_probed_by_prefix(sequences):
    inputs, lengths = sequences
    encoder = HFDecoder(tiny("bert", is_decoder=False), item_table())
    assert not encoder.is_causal
    result = capture(encoder, inputs[:4], lengths[:4])
    assert result.settings["prefixes"]
    n = int(lengths[0])
    prefix = torch.from_numpy(item_table()[inputs[:1, : n - 1]])
    with torch.no_grad():
        state = encoder.model(inputs_embeds=prefix).last_hidden_state[0, -1]
    np.testing.assert_allclose(result.grams[0, -1, n - 2, n - 2], float(state @ state), rtol=1e-4)
    leaky = capture(encoder, inputs[:4], lengths[:4], prefixes=False)
    assert leaky.settings["leaky"]
    assert not leaky.is_causal
    assert not np.allclose(leaky.grams[0, -1], result.grams[0, -1], rtol=1e-2)


@pytest.mark.parametrize("as_vectors", [False, True])
def test_a_model_that_sees_its_answers_is_caught(as_vectors, sequences):
    inputs, lengths = sequences
    cheater = Toy(is_leaky=True, is_causal=True)
    fed = cheater.table.detach().numpy()[inputs] if as_vectors else inputs
    with pytest.raises(ModelError, match="is_causal = False"):
        capture(cheater, fed, lengths)
    assert n_hooks(cheater) == 0
    capture(Toy(), fed, lengths)


def test_a_nan_names_the_layer_and_the_user(sequences):
    inputs, lengths = sequences
    inputs = np.where(inputs == 29, 0, inputs)
    inputs[7, 0] = 29
    toy = Toy()
    toy.poisoned_item = 29
    with pytest.raises(NonFiniteStateError, match=r"'block 2'.* user 1007\b"):
        capture(toy, inputs, lengths, users=np.arange(1000, 1040))
    inputs[7, 0], inputs[1, lengths[1]] = 0, 29  # in the padding it is nobody's concern
    assert np.isfinite(capture(toy, inputs, lengths).grams).all()


def test_a_model_that_mixes_users_is_not_told_to_set_is_causal(sequences):
    class Mixed(Toy):
        def __init__(self):
            super().__init__()
            self.blocks[0] = nn.GRU(5, 5)

        def forward_sequences(self, inputs, lengths):
            return self.blocks[0](self.table[inputs])

        def layers(self):
            return [("embed", "embed", self.blocks[0]), ("block 1", "block", self.blocks[0])]

    with pytest.raises(ModelError, match="batch_first=True") as caught:
        capture(Mixed(), *sequences)
    assert "is_causal" not in str(caught.value)
