import torch

from frellm4rec.experiments.paper import paper_numbers
from frellm4rec.models import FMLPRec, FMLPRecConfig
from frellm4rec.runs.defaults import model_defaults


def test_number_of_parameters():
    """Items 182,300, positions 2,500, a norm 100; each of two blocks 2,600 of the filter, 20,250 and 200."""
    model = FMLPRec(FMLPRecConfig(n_items=3646))
    assert model.blocks[0].filter.weight.shape == (26, 50, 2)
    assert sum(p.numel() for p in model.parameters()) == 231_000


def test_weights_are_drawn_as_published():
    model = FMLPRec(FMLPRecConfig(n_items=3646), seed=4)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            assert parameter.unique().tolist() == [float("norm.weight" in name)], name
        else:
            assert abs(float(parameter.std()) - 0.02) < 0.002, name
            assert abs(float(parameter.mean())) < 0.002, name
    assert not torch.equal(model.blocks[0].filter.weight, model.blocks[1].filter.weight)


def test_the_own_loss_is_the_published_one():
    assert FMLPRecConfig(n_items=5).loss == "bce"
    assert not FMLPRec(FMLPRecConfig(n_items=5)).has_softmax_loss
    assert FMLPRec(FMLPRecConfig(n_items=5, loss="softmax")).has_softmax_loss


def test_the_title_is_that_of_the_paper():
    assert model_defaults("fmlprec").title in set(paper_numbers()["model"])
