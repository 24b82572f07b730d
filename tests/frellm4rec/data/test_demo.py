import numpy as np
import pytest

from frellm4rec.data.demo import NOUNS, DemoConfig, make_demo
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.plugins.registry import load_plugin
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import spectral_energy


@pytest.fixture(scope="module")
def world():
    return make_demo()


def vectors_of(community, seed=0, d=16):
    """Item vectors: a vector of the community plus noise with the same RMS norm."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(NOUNS), d))[community] + rng.normal(size=(len(community), d))


def profile_of(dataset, item_vectors):
    """Return the whole excess of a two-layer model whose layers both hand on the vector of the item just read."""
    probe = probe_sequences(dataset)
    states = np.stack([item_vectors[probe.inputs]] * 2, axis=1)
    grams = LayerGrams.from_states(states, probe.lengths, ("embed", "block 1"))
    bases = ItemGraph.from_interactions(dataset.train.user_items).local_bases(
        probe.targets, probe.lengths, users=probe.users
    )
    return DecayProfile.from_energy(spectral_energy(grams, bases, nulls=("swap",)), component="whole")


def z_score(interval):
    return interval.value / ((interval.high - interval.low) / 3.92)


def test_states_smooth_on_the_communities_read_as_preserved(world):
    profile = profile_of(world.dataset, vectors_of(world.item_community))
    assert z_score(profile.embed_excess["whole"]) > 8
    assert profile.embed_excess["whole"].low > 0
    assert str(profile.verdict).startswith("preserved")


@pytest.mark.parametrize("seed", range(3))
def test_random_states_read_as_no_signal(world, seed):
    random = np.random.default_rng(seed).normal(size=(world.dataset.n_items, 16))
    profile = profile_of(world.dataset, random)
    assert abs(z_score(profile.embed_excess["whole"])) < 3
    assert str(profile.verdict).startswith("no measurable")


def test_titles_know_the_communities_in_part(world):
    agree = np.mean(world.title_community == world.item_community)
    assert 0.6 < agree < 0.8
    by_community = profile_of(world.dataset, vectors_of(world.item_community)).embed_excess["whole"]
    by_title = profile_of(world.dataset, vectors_of(world.title_community)).embed_excess["whole"]
    assert by_title.low > 0
    assert by_title.high < by_community.low
    # The noun in the title is one of the community it is said to speak of, and no two titles are alike.
    for title, community in zip(world.dataset.item_titles, world.title_community, strict=True):
        assert title.split(":")[0].split()[-1] in NOUNS[community]
    assert len(set(world.dataset.item_titles)) == world.dataset.n_items


def test_the_signal_is_the_order_of_a_users_own_tastes(world):
    # The same histories in another order: the same graph, and each user reads the same items, at other moments.
    rng = np.random.default_rng(0)
    shuffled = [np.concatenate([rng.permutation(s[:-2]), s[-2:]]) for s in world.dataset.sequences]
    dataset = Dataset.from_interactions(Interactions.from_sequences(shuffled, n_items=world.dataset.n_items))
    assert (dataset.train.user_items != world.dataset.train.user_items).nnz == 0
    before = profile_of(world.dataset, vectors_of(world.item_community)).embed_excess["whole"]
    after = profile_of(dataset, vectors_of(world.item_community)).embed_excess["whole"]
    assert after.high < before.low / 3


def test_the_truth_describes_the_log(world):
    data = world.dataset
    assert (data.n_users, data.n_items) == (800, 400)
    for sequence, path, times in zip(data.sequences, world.taste_paths, world.timestamps, strict=True):
        assert len(sequence) == len(path) == len(times)
        assert 12 <= len(sequence) <= 32
        assert len(np.unique(sequence)) == len(sequence)
        assert (np.diff(times) > 0).all()
        assert len(np.unique(path)) <= 3
    items, tastes = np.concatenate(data.sequences), np.concatenate(world.taste_paths)
    follows = np.mean(world.item_community[items] == tastes)
    assert follows == pytest.approx(0.85 + 0.15 / 8, abs=0.02)
    stays = np.mean(np.concatenate([path[1:] == path[:-1] for path in world.taste_paths]))
    assert stays == pytest.approx(0.85, abs=0.02)
    for community in range(len(NOUNS)):
        members = world.item_community == community
        assert members.sum() == 50
        assert world.item_popularity[members].sum() == pytest.approx(1.0)
    counts = np.bincount(items, minlength=data.n_items)
    assert counts.min() > 0
    assert np.sort(counts)[-40:].sum() > 0.2 * counts.sum()
    assert np.corrcoef(counts, world.item_popularity)[0, 1] > 0.9


def test_same_seed_same_world_on_every_machine(world):
    # Weights trained on the demo are kept under this hash; a change makes every one of them stale, and the figures old.
    assert world.dataset.fingerprint()[:16] == "a8e1b0afd745b839"
    assert make_demo().dataset.fingerprint() == world.dataset.fingerprint()
    assert make_demo(seed=1).dataset.fingerprint() != world.dataset.fingerprint()


def test_table_of_the_world_gives_the_same_histories(world):
    again = resolve_dataset(world.to_frame())
    assert [again.item_ids[s].tolist() for s in again.sequences] == [
        world.dataset.item_ids[s].tolist() for s in world.dataset.sequences
    ]
    titles = dict(zip(world.dataset.item_ids, world.dataset.item_titles, strict=True))
    assert [titles[item] for item in again.item_ids] == again.item_titles


def test_plugin(world):
    demo = load_plugin("datasets", "demo")
    assert demo(None).fingerprint() == resolve_dataset("demo").fingerprint() == world.dataset.fingerprint()
    assert demo("1").fingerprint() == make_demo(seed=1).dataset.fingerprint()
    assert (demo("0").name, demo("1").name) == ("demo", "demo:1")
    for argument in ("x", "-1", "1.5", "²"):
        with pytest.raises(ConfigError, match="is a seed"):
            demo(argument)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_length": 2}, "3 events or more"),
        ({"min_length": 9, "max_length": 8}, "min_length ≤ max_length"),
        ({"n_items": 100}, "so no community runs out"),
        ({"n_tastes": 9}, "n_tastes must lie in 1…8; got 9"),
        ({"persistence": 1.2}, "persistence is a probability"),
        ({"fashion": float("nan")}, "fashion must lie in"),
    ],
)
def test_settings_check_themselves(settings, message):
    with pytest.raises(ConfigError, match=message):
        DemoConfig(**settings)
