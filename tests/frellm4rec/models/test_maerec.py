"""MAERec: slow checks of graph, masking, reconstruction and losses, and of a training that is stopped."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from frellm4rec.models import MAERec, MAERecConfig, SASRec, SASRecConfig
from frellm4rec.models.maerec import reconstruction
from frellm4rec.models.maerec.graph import TransitionGraph, transition_edges
from frellm4rec.models.maerec.masking import PathMasking
from frellm4rec.models.maerec.reconstruction import EdgeDecoder
from frellm4rec.models.negatives import draw_absent, draw_unseen
from frellm4rec.runs.pretrained import pretrained
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import make_batch, training_samples
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import padded

N_ITEMS = 30
TINY = {"n_items": N_ITEMS, "max_length": 8, "n_features": 8, "n_inner": 8, "n_seeds": 3, "n_corrupted": 4}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def random_log(n_users=12, length=10, seed=0):
    rng = np.random.default_rng(seed)
    walks = [(rng.integers(N_ITEMS) + rng.integers(-2, 3, length).cumsum()) % N_ITEMS for _ in range(n_users)]
    return Dataset.from_interactions(Interactions.from_sequences(walks, n_items=N_ITEMS), name="walks")


LOG = random_log()


def make(seed=0, **settings):
    return MAERec.from_dataset(MAERecConfig(**{**TINY, **settings}), LOG, seed=seed)


def graph_of(reach=2):
    return TransitionGraph(transition_edges(LOG.train, reach), N_ITEMS)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def neighbours_by_loop(log, reach):
    near = {item: set() for item in range(log.n_items)}
    for sequence in log.sequences():
        for s, t in itertools.combinations(range(len(sequence)), 2):
            if t - s <= reach and sequence[s] != sequence[t]:
                near[int(sequence[s])].add(int(sequence[t]))
                near[int(sequence[t])].add(int(sequence[s]))
    return near


def dense(graph, values):
    matrix = torch.zeros(graph.n_items, graph.n_items, dtype=values.dtype)
    matrix[graph.rows, graph.columns] = values
    return matrix


def dense_normalised(graph, is_masked=None):
    """The matrix of the definition, entry by entry."""
    n = graph.n_items
    matrix = torch.eye(n)
    for i, j in graph.edges.T.tolist():
        if is_masked is None or not (is_masked[i] or is_masked[j]):
            matrix[i, j] = matrix[j, i] = 1
    degrees = matrix.sum(1)
    return matrix / torch.sqrt(degrees[:, None] * degrees)


# The graph


def test_the_graph_of_two_sequences():
    """0 1 2 3 1 and 4 0: distance at most 2, no pair twice, no item beside itself."""
    log = Interactions.from_sequences([np.array([0, 1, 2, 3, 1]), np.array([4, 0])], n_items=6)
    expected = [[0, 1], [0, 2], [0, 4], [1, 2], [1, 3], [2, 3]]
    assert transition_edges(log, 2).T.tolist() == expected
    assert transition_edges(log, 2**31 - 1).equal(transition_edges(log, 4))  # no sequence is longer than 5
    assert transition_edges(log, 1).T.tolist() == [[0, 1], [0, 4], [1, 2], [1, 3], [2, 3]]
    graph = TransitionGraph(transition_edges(log, 2), 6)
    assert graph.neighbours.toarray()[5].tolist() == [0, 0, 0, 0, 0, 1], "an item without neighbours has itself"
    torch.testing.assert_close(dense(graph, graph.normalised()), dense_normalised(graph))


@pytest.mark.parametrize("reach", [1, 2, 3, 20])
def test_edges_against_a_loop(reach):
    near = neighbours_by_loop(LOG.train, reach)
    expected = sorted([i, j] for i in near for j in near[i] if i < j)
    assert transition_edges(LOG.train, reach).T.tolist() == expected


def test_the_graph_is_of_the_training_part():
    changed = [np.concatenate([s[:-2], (s[-2:] + 11) % N_ITEMS]) for s in LOG.sequences]
    other = Dataset.from_interactions(Interactions.from_sequences(changed, n_items=N_ITEMS))
    models = [MAERec.from_dataset(MAERecConfig(**TINY), dataset) for dataset in (LOG, other)]
    assert torch.equal(models[0].graph.edges, models[1].graph.edges)


@pytest.mark.parametrize("is_masked", [None, torch.arange(N_ITEMS) % 4 == 0])
def test_propagation_sparse_against_dense(is_masked):
    graph, matrix = graph_of(), dense_normalised(graph_of(), is_masked)
    embeddings = torch.randn(N_ITEMS, 5, generator=draws()).requires_grad_()
    layers = graph.propagate(embeddings, graph.normalised(is_masked), 3)
    for power, layer in enumerate(layers):
        torch.testing.assert_close(layer, torch.linalg.matrix_power(matrix, power) @ embeddings, **CLOSE)
    weights = torch.randn(N_ITEMS, 5, generator=draws(1))
    (fast,) = torch.autograd.grad((torch.stack(layers).sum(0) * weights).sum(), embeddings)
    whole = sum(torch.linalg.matrix_power(matrix, power) for power in range(4))
    torch.testing.assert_close(fast, whole.T @ weights, **CLOSE)


def test_a_product_with_some_edges():
    graph = graph_of()
    is_kept = torch.rand(graph.n_edges, generator=draws()) < 0.5
    matrix = dense(graph, graph.kept_edges(is_kept))
    assert torch.equal(matrix, matrix.T)
    assert matrix.diagonal().abs().sum() == 0
    pairs = graph.edges[:, is_kept].T.tolist()
    assert sorted(matrix.triu().nonzero().tolist()) == sorted(pairs)


# The table and the states


def test_the_table_is_the_sum_of_all_layers_on_the_full_graph_and_computed_once_in_evaluation(monkeypatch):
    model, calls, propagate = make(), [], TransitionGraph.propagate
    model.masking.is_masked[:5] = True
    whole = sum(torch.linalg.matrix_power(dense_normalised(model.graph), power) for power in range(3))
    torch.testing.assert_close(model.item_embeddings(), whole @ model.items.weight, **CLOSE)
    monkeypatch.setattr(TransitionGraph, "propagate", lambda *args: calls.append(1) or propagate(*args))
    model.eval()
    for _ in range(3):
        model.score(*padded([1, 2, 3]))
    assert len(calls) == 1
    with torch.no_grad():
        model.items.weight.mul_(2)
    before = model.score(*padded([1, 2, 3]))
    assert len(calls) == 2
    torch.testing.assert_close(model.item_embeddings()[7], (whole @ model.items.weight)[7], **CLOSE)
    assert torch.equal(model.score(*padded([1, 2, 3])), before)


def test_a_state_is_the_sum_of_those_of_all_layers():
    model, seen = make().eval(), {}
    inputs, lengths = padded([4, 9, 2])
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, args, out, n=number: seen.update({n: (args[0], out)}))
    states = model(inputs, lengths)
    embedded = model.input_norm(model.item_embeddings()[inputs] + model.positions.weight[:3])
    torch.testing.assert_close(seen[0][0], embedded)
    torch.testing.assert_close(states, embedded + seen[0][1] + seen[1][1])


# Masking


def masked_by_search(near, scores, uniforms, config):
    """Rounds of a search over sets, with the same random numbers."""
    seeds = set(sorted(range(N_ITEMS), key=lambda item: -scores[item])[: config.n_seeds])
    masked, edges = set(seeds), {(i, j) for i in near for j in near[i]}
    for hop in range(1, config.mask_depth):
        touched = {(i, j) for i, j in edges if i in seeds or j in seeds}
        edges -= touched
        reached = {item for pair in touched for item in pair} - masked
        seeds = {item for item in reached if uniforms[hop - 1][item] < config.mask_share**hop}
        masked |= seeds
    return masked


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_masked_items_against_a_search_with_the_same_draws(depth, seed):
    config = MAERecConfig(**{**TINY, "mask_depth": depth, "reach": 1})
    graph, masking = graph_of(reach=1), PathMasking(config)
    likeness = torch.randn(N_ITEMS, generator=draws(9))
    masking.draw(graph, likeness, draws(seed))
    again = draws(seed)
    gumbel = [-math.log(-math.log(u)) for u in torch.rand(N_ITEMS, generator=again).tolist()]
    scores = [s + g for s, g in zip(likeness.tolist(), gumbel, strict=True)]
    uniforms = [torch.rand(N_ITEMS, generator=again).tolist() for _ in range(depth - 1)]
    expected = masked_by_search(neighbours_by_loop(LOG.train, 1), scores, uniforms, config)
    assert set(masking.is_masked.nonzero()[:, 0].tolist()) == expected
    assert config.n_seeds <= len(expected) < N_ITEMS
    remains = dense(graph, graph.normalised(masking.is_masked))
    assert all(int((remains[item] > 0).sum()) == 1 for item in expected), "only the self loop"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_likeness_against_dense_walks(depth):
    config, graph = MAERecConfig(**{**TINY, "mask_depth": depth}), graph_of()
    embeddings = torch.randn(N_ITEMS, 8, generator=draws(4)).requires_grad_()
    likeness = PathMasking(config).likeness(graph, embeddings, draws())
    again = draws()
    matrices = [
        dense(graph, graph.kept_edges(torch.rand(graph.n_edges, generator=again) < 0.5 ** (hop + 1)))
        for hop in range(depth)
    ]
    assert all(a.sum() > b.sum() for a, b in itertools.pairwise(matrices))
    walks = [torch.linalg.multi_dot(matrices[:n]) if n > 1 else matrices[0] for n in range(1, depth + 1)]
    if depth > 1:
        walks[1] = walks[1] - torch.diag(walks[1].diagonal())
    sums = sum(walks) @ embeddings
    norms = (embeddings.norm(dim=1) * sums.norm(dim=1)).clamp(min=1e-8)
    torch.testing.assert_close(likeness, (embeddings * sums).sum(1) / norms, **CLOSE)
    assert float(likeness.detach().abs().max()) <= 1 + 1e-6
    likeness.mean().backward()
    assert embeddings.grad.abs().max() > 0


def test_the_seeds_are_like_their_neighbourhood_more_often_than_others():
    config, graph = MAERecConfig(**{**TINY, "mask_depth": 1}), graph_of()
    likeness = torch.zeros(N_ITEMS)
    likeness[:10] = 1.0
    counts, masking = torch.zeros(N_ITEMS), PathMasking(config)
    for seed in range(1000):
        masking.draw(graph, likeness, draws(seed))
        counts += masking.is_masked
    assert counts.sum() == 3 * 1000
    # The first of the Gumbel draws is by the softmax: e times as probable.
    assert 2.2 < counts[:10].mean() / counts[10:].mean() < 2.8


def test_the_reward_against_the_rule():
    masking = PathMasking(MAERecConfig(**TINY))
    for losses, expected in (
        ([], 1.0),
        ([1.0], 1.0),
        ([1.0, 0.9], 1.0),
        ([1.0, 0.9, 0.7], 1.0),  # the last decrease is .2, the mean .15
        ([1.0, 0.7, 0.6], 0.2),
        ([1.0, 1.2, 1.1], 1.0),
    ):
        masking.losses[: len(losses)] = torch.tensor(losses)
        masking.n_losses.fill_(len(losses))
        assert masking.reward() == expected, losses


def test_a_step_in_parts_is_counted_once_and_masks_once():
    config = MAERecConfig(**{**TINY, "mask_every": 3})
    masking, weights = PathMasking(config), torch.zeros(2)
    begun = []
    for step in range(8):
        for part in range(2):
            begun.append(masking.begin(weights))
            masking.record(torch.tensor(float(step + part) * 4), 4)
        weights.add_(1.0)
    assert begun[::2] == [(True, step % 3 == 0) for step in range(8)]
    assert begun[1::2] == [(False, step % 3 == 0) for step in range(8)]
    # The last mask is of step 6, whose losses begin with the last one before it, of step 5: its parts have 5 and 6.
    assert masking.losses[: int(masking.n_losses)].tolist() == [5.5, 6.5]
    assert masking.step_loss.tolist() == [(7 + 8) * 4, 8]


# Reconstruction


@pytest.mark.parametrize("n_edges", [3, 300])
def test_reconstruction_loss_and_gradients_against_a_loop(n_edges, monkeypatch):
    config = MAERecConfig(**{**TINY, "n_reconstructed": n_edges})
    monkeypatch.setitem(reconstruction._EDGES_AT_ONCE, "cpu", 5)
    graph, decoder = graph_of(), EdgeDecoder(config)
    generator = draws(2)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    layers = [torch.randn(N_ITEMS, 8, generator=generator).requires_grad_() for _ in range(3)]
    is_masked = torch.zeros(N_ITEMS, dtype=torch.bool)
    is_masked[[3, 11]] = True
    loss = decoder.loss(graph, layers, is_masked, draws())
    again = draws()
    first, second = decoder.drawn_edges(graph, is_masked, again)
    masked = [pair for pair in graph.edges.T.tolist() if {3, 11} & set(pair)]
    assert len(first) == min(n_edges, len(masked))
    assert all([i, j] in masked for i, j in zip(first.tolist(), second.tolist(), strict=True))
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(first)
    wrong_second = draw_absent(graph.neighbours, first, 2, again)
    wrong_first = draw_absent(graph.neighbours, second, 2, again)

    def score(i, j):
        hidden = torch.cat([layers[a][i] * layers[b][j] for a in (1, 2) for b in (1, 2)])
        for linear in decoder.maps[:-1]:
            hidden = torch.relu(linear(hidden))
        return decoder.maps[-1](hidden)[0]

    expected = 0.0
    for row, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        pairs = [(i, j), *((i, k) for k in wrong_second[row].tolist()), *((k, j) for k in wrong_first[row].tolist())]
        assert all(graph.neighbours[a, b] == 0 for a, b in pairs[1:])
        assert len(pairs) == 5
        scores = torch.stack([score(*pair) for pair in pairs])
        expected = expected - torch.log_softmax(scores, 0)[0] / len(first)
    torch.testing.assert_close(loss, expected, **CLOSE)
    wanted = [*layers[1:], *decoder.parameters()]
    fast, slow = torch.autograd.grad(loss * 3, wanted), torch.autograd.grad(expected * 3, wanted)
    for one_way, other_way in zip(fast, slow, strict=True):
        torch.testing.assert_close(one_way, other_way, rtol=1e-4, atol=1e-5)


def test_wrong_ends_are_uniform_over_the_items_that_are_no_neighbours():
    graph = graph_of()
    drawn = draw_absent(graph.neighbours, torch.tensor([4]), 20_000, draws())[0]
    counts = torch.bincount(drawn, minlength=N_ITEMS)
    absent = torch.from_numpy(graph.neighbours.toarray()[4] == 0)
    assert counts[~absent].sum() == 0
    expected = 20_000 / int(absent.sum())
    chi_square = float(((counts[absent] - expected) ** 2 / expected).sum())
    degrees = int(absent.sum()) - 1
    assert abs(chi_square - degrees) < 4 * math.sqrt(2 * degrees)


def test_a_graph_without_edges_or_without_strangers_has_nothing_to_reconstruct():
    config = MAERecConfig(n_items=4, n_features=8, n_inner=8, n_seeds=1)
    pairs = torch.tensor(list(itertools.combinations(range(4), 2))).T
    for edges in (torch.zeros(2, 0, dtype=torch.long), pairs):
        graph, decoder = TransitionGraph(edges, 4), EdgeDecoder(config)
        layers = graph.propagate(torch.randn(4, 8), graph.normalised(), 2)
        assert decoder.loss(graph, layers, torch.ones(4, dtype=torch.bool), draws()).item() == 0.0


# The loss


def batch_of(dataset=LOG, rows=slice(None)):
    samples = training_samples(dataset, 8)
    return make_batch(samples.select(np.arange(len(samples))[rows]), "every", torch.device("cpu"))


def of_purposes(seed=0):
    """The three streams of a call: negatives, mask, edges."""
    generator = draws(seed)
    return [draws(int(torch.randint(2**62, (), generator=generator))) for _ in range(3)]


@pytest.mark.parametrize("mae_weight", [0.0, 0.1, 1.0])
def test_the_loss_against_its_parts(mae_weight):
    model = make(mae_weight=mae_weight).eval()
    batch = batch_of()
    total, n = model.training_loss(batch, draws())
    of_negatives, of_mask, of_edges = of_purposes()
    negatives = draw_unseen(batch, 1, of_negatives)[:, 0]
    is_masked = None
    if mae_weight:
        likeness = model.masking.likeness(model.graph, model.items.weight, of_mask)
        is_masked = model.masking.is_masked
        assert 0 < int(is_masked.sum()) < N_ITEMS
    matrix = dense_normalised(model.graph, is_masked)
    layers = [torch.linalg.matrix_power(matrix, power) @ model.items.weight for power in range(3)]
    table = sum(layers)
    states = model._states(batch.inputs, table).detach()
    table, expected = table.detach(), 0.0
    for number, (row, t) in enumerate(batch.counts.nonzero().tolist()):
        right, wrong = states[row, t] @ table[batch.targets[row, t]], states[row, t] @ table[negatives[number]]
        expected += math.log1p(math.exp(-right)) + math.log1p(math.exp(wrong))
    if mae_weight:
        of_edges = model.decoder.loss(model.graph, layers, is_masked, of_edges)
        expected += n * mae_weight * (of_edges - likeness.mean()).item()
    assert n == batch.n_targets
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_without_the_autoencoder_nothing_of_it_is_there():
    model = make(mae_weight=0.0)
    assert model.masking is None
    assert model.decoder is None
    assert not [name for name in model.saved_state() if "mask" in name or "decoder" in name]
    assert MAERec(MAERecConfig(n_items=3, mae_weight=0.0), torch.zeros(2, 0, dtype=torch.long)).config.n_seeds == 50


def test_the_softmax_is_taken_on_the_masked_table_and_may_be_sampled():
    batch, settings = batch_of(), {"loss": "softmax", "mae_weight": 0.0}
    model = make(**settings).eval()
    assert model.has_softmax_loss
    full, n = model.training_loss(batch, draws())
    states = model(batch.inputs, batch.lengths)[batch.counts]
    expected = torch.nn.functional.cross_entropy(states @ model.item_embeddings().T, batch.targets[batch.counts])
    assert full.item() / n == pytest.approx(float(expected), rel=1e-5)
    sampled, _ = model.training_loss(replace(batch, negatives=torch.randperm(N_ITEMS)), draws())
    assert sampled.item() == pytest.approx(full.item(), rel=1e-5)


def test_the_gradient_of_the_mask_is_scaled_by_the_reward():
    gradients = []
    for losses in ([], [1.0, 0.5, 0.4]):
        model = make()
        model.masking.losses[: len(losses)] = torch.tensor(losses)
        model.masking.n_losses.fill_(len(losses))
        _, masks = model.masking.begin(model.items.weight)
        assert masks
        likeness = model.masking.likeness(model.graph, model.items.weight, draws())
        (gradient,) = torch.autograd.grad(model.masking.loss(likeness), model.items.weight)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1], 0.2 * gradients[0])
    assert gradients[0].abs().max() > 0


def test_parts_of_a_step_add_up_to_a_step():
    """In a step that keeps the mask: the recommendation's loss of both halves, and the reconstruction's by targets."""
    model = make(loss="softmax", n_reconstructed=500).eval()
    model.training_loss(batch_of(), draws())
    with torch.no_grad():
        model.items.weight.mul_(1.0)
    whole, n = model.training_loss(batch_of(), draws(5))
    mask = model.masking.is_masked.clone()
    halves = [model.training_loss(batch_of(rows=slice(part, None, 2)), draws(6 + part)) for part in range(2)]
    assert torch.equal(model.masking.is_masked, mask)
    assert sum(count for _, count in halves) == n
    assert float(model.masking.step_loss[1]) == 2 * n
    assert sum(value.item() for value, _ in halves) == pytest.approx(whole.item(), rel=1e-3), "the wrong edges differ"


# Stopping, and going on


class StoppedError(Exception):
    """What a kill looks like from inside."""


@pytest.mark.parametrize(("save_every", "accumulation"), [(1, 1), (1, 2), (0, 1), (2, 3)])
def test_a_stopped_training_ends_as_an_undisturbed_one(save_every, accumulation, tmp_path, monkeypatch):
    """Weights, mask, losses and counters, although masks are drawn before and after the stop."""
    settings = {"batch_size": 4, "learning_rate": 1e-2, "validate_every": 1, "k": 1, "weight_decay": 1e-6}
    config = TrainingConfig(n_epochs=5, save_every=save_every, accumulation=accumulation, **settings)
    straight = make(mask_every=4)
    record = train(straight, LOG, config, seed=3)
    calls, loss, masked = [], MAERec.training_loss, []
    draw = PathMasking.draw
    monkeypatch.setattr(PathMasking, "draw", lambda self, *args: masked.append(1) or draw(self, *args))

    def limited(self, batch, generator):
        calls.append(1)
        if len(calls) > 8 * accumulation:
            raise StoppedError
        return loss(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(MAERec, "training_loss", limited)
        with pytest.raises(StoppedError):
            train(make(mask_every=4), LOG, config, seed=3, checkpoints=tmp_path)
    assert len(masked) == 2
    other = make(seed=7, mask_every=4)
    assert train(other, LOG, config, seed=3, checkpoints=tmp_path, resume=True) == record
    assert len(masked) > 3
    assert other.revision == straight.revision
    states = other.saved_state(), straight.saved_state()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert {"masking.is_masked", "masking.losses", "masking.n_steps", "masking.step_loss"} < set(states[1])


def test_a_saved_model_brings_its_graph(tmp_path):
    model = make().eval()
    folder = model.save_pretrained(tmp_path / "model")
    loaded = MAERec.from_pretrained(folder)
    assert torch.equal(loaded.item_embeddings(), model.item_embeddings())
    assert (loaded.graph.neighbours != model.graph.neighbours).nnz == 0
    other = MAERec.from_dataset(MAERecConfig(**TINY), random_log(seed=5))
    if other.graph.n_edges == model.graph.n_edges:
        pytest.fail("the graphs must differ")
    with pytest.raises(RuntimeError):
        other.load_saved_state(model.saved_state())
    SASRec(SASRecConfig(n_items=N_ITEMS)).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="not describe a maerec"):
        MAERec.from_pretrained(tmp_path / "other")


def test_loading_another_graph_of_as_many_edges_rebuilds_its_matrix():
    edges = torch.tensor([[0, 1], [1, 2]])
    config = MAERecConfig(n_items=4, n_features=8, n_inner=8, n_seeds=1)
    first, second = MAERec(config, edges), MAERec(config, edges + 1, seed=1)
    second.load_saved_state(first.saved_state())
    assert torch.equal(second.eval().item_embeddings(), first.eval().item_embeddings())


def test_its_table_can_be_the_id_embeddings_of_a_language_model(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path))
    architecture = {name: value for name, value in TINY.items() if name != "n_items"}
    settings = {"training": TrainingConfig(n_epochs=2, k=1), "architecture": architecture}
    tables = [pretrained("maerec", LOG, **settings).item_embeddings().detach() for _ in range(2)]
    assert tables[0].shape == (N_ITEMS, 8)
    assert torch.equal(*tables)


# The config


@pytest.mark.parametrize(("mae_weight", "n_decoder"), [(0.0, 0), (1.0, 25_201)])
def test_the_number_of_parameters(mae_weight, n_decoder):
    """Items 182,300, positions 2,500, norm 100, two blocks of 30,650; decoder 200 → 100 → 50 → 1."""
    model = MAERec(MAERecConfig(n_items=3646, mae_weight=mae_weight), torch.tensor([[0], [1]]))
    assert sum(p.numel() for p in model.parameters()) == 182_300 + 2_500 + 100 + 2 * 30_650 + n_decoder


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reach": 0}, "reach must be"),
        ({"n_heads": 4, "n_features": 50}, "Choose one of 1, 2, 5, 10, 25, 50"),
        ({"n_corrupted": 5}, "n_corrupted must be even"),
        ({"n_corrupted": 0}, "n_corrupted must be"),
        ({"loss": "gbce"}, "loss must be one of .*Did you mean 'bce'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"mae_weight": -1.0}, r"mae_weight must lie in \[0, inf\); got -1"),
        ({"mae_weight": True}, "mae_weight must lie in"),
        ({"mask_share": 1.0}, r"mask_share must lie in \(0, 1\)"),
        ({"low_reward": 2.0}, r"low_reward must lie in \[0, 1\]"),
        ({"mask_evry": 3}, "Did you mean 'mask_every'"),
    ],
)
def test_config_checks_itself(settings, says):
    with pytest.raises(ConfigError, match=says):
        MAERecConfig.from_dict({**TINY, **settings})


def test_a_mask_must_leave_items():
    with pytest.raises(ConfigError, match="n_seeds must be below the 12 items; got 50"):
        MAERec.from_dataset(MAERecConfig(n_items=12), make_ring())
