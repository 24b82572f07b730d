"""Attention in training steps: eager in bfloat16 on the CPU, the backbone's own everywhere else."""

from __future__ import annotations

import pytest
import torch

from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.models.frellm4rec.model import FreLLM4Rec
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.attention import attention_of, step_attention
from spectral_probe.backbones import HFDecoder
from tests.frellm4rec.tiny_recommenders import backbone, frellm4rec, padded
from tests.spectral_probe.tiny_models import tiny

ONE_EPOCH = TrainingConfig(n_epochs=1, batch_size=16, k=1)


def in_bfloat16():
    return HFDecoder(tiny("llama").to(torch.bfloat16), name="tiny llama")


def current(model):
    return model.backbone.model.config._attn_implementation


def test_the_choice_follows_the_number_format():
    assert step_attention(frellm4rec(12), "no") == "sdpa"
    assert step_attention(frellm4rec(12), "bf16") == "eager"
    assert step_attention(frellm4rec(12, decoder=in_bfloat16()), "no") == "eager"
    assert step_attention(SASRec(SASRecConfig(n_items=12)), "bf16") is None
    eager = backbone()
    eager.model.set_attn_implementation("eager")
    assert step_attention(frellm4rec(12, decoder=eager), "no") == "eager"


@pytest.mark.parametrize(("precision", "expected"), [("no", "sdpa"), ("bf16", "eager")])
def test_only_steps_take_it_and_the_record_names_it(precision, expected, ring, monkeypatch):
    seen, forward = {True: set(), False: set()}, FreLLM4Rec.forward

    def spy(self, inputs, lengths):
        seen[self.training].add(current(self))
        return forward(self, inputs, lengths)

    monkeypatch.setattr(FreLLM4Rec, "forward", spy)
    model = frellm4rec(12, mode="causal", inputs="id")
    config = TrainingConfig(n_epochs=1, batch_size=16, k=1, mixed_precision=precision)
    assert train(model, ring, config).attention == expected
    assert seen == {True: {expected}, False: {"sdpa"}}
    assert current(model) == "sdpa"


def test_a_checkpoint_without_a_choice_goes_on_with_the_attention_of_the_backbone(ring, tmp_path, monkeypatch):
    """As a checkpoint from before the choice was made."""
    monkeypatch.setattr("frellm4rec.training.loop.step_attention", lambda *_: None)
    config = TrainingConfig(n_epochs=2, batch_size=16, k=1, mixed_precision="bf16", validate_every=1)

    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    straight, model = frellm4rec(12, inputs="id"), frellm4rec(12, inputs="id")
    train(straight, ring, config)
    with pytest.raises(KeyboardInterrupt):
        train(model, ring, config, checkpoints=tmp_path, log=stop)
    monkeypatch.undo()
    resumed = frellm4rec(12, inputs="id")
    assert train(resumed, ring, config, checkpoints=tmp_path, resume=True).attention is None
    assert resumed.revision == straight.revision


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gpt2", "bert"])
def test_eager_gives_the_same_states_and_gradients(family):
    """Float32, unequal lengths, a bidirectional mask where the family has one."""
    model = frellm4rec(12, family=family, mode="prefix", inputs="id").train()
    inputs, lengths = padded([1, 2, 3, 4, 5], [6, 7], [8])
    results = []
    for name in (None, "eager"):
        model.zero_grad()
        with attention_of(model, name):
            assert current(model) == (name or "sdpa")
            states = model(inputs, lengths)[torch.arange(3), lengths - 1]
            states.square().mean().backward()
        results.append([states.detach(), *(p.grad.clone() for p in model.fusion.parameters())])
    for eager, own in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(eager, own, rtol=1e-3, atol=1e-4)


def test_it_is_given_back_after_an_error():
    model = frellm4rec(12)
    with pytest.raises(ZeroDivisionError), attention_of(model, "eager"):
        raise ZeroDivisionError
    assert current(model) == "sdpa"
    with attention_of(SASRec(SASRecConfig(n_items=12)), "eager"):
        pass
