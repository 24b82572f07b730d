"""The built-in data set: a small made-up bookshop with known item communities, against which results can be checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from spectral_probe.errors import ConfigError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.types import FloatArray, IntArray

#: The nouns of each community. The noun of a title does not always come from the item's own community.
NOUNS: tuple[tuple[str, ...], ...] = (
    ("Harbour", "Lighthouse", "Sailor", "Tide", "Anchor", "Schooner", "Reef", "Captain"),
    ("Galaxy", "Starship", "Comet", "Orbit", "Android", "Nebula", "Colony", "Moonbase"),
    ("Kitchen", "Bakery", "Spice", "Bread", "Orchard", "Recipe", "Honey", "Supper"),
    ("Castle", "Knight", "Dragon", "Wizard", "Kingdom", "Sword", "Throne", "Prophecy"),
    ("Murder", "Detective", "Alibi", "Witness", "Poison", "Inspector", "Verdict", "Suspect"),
    ("Summit", "Glacier", "Trail", "Canyon", "Expedition", "Ridge", "Avalanche", "Basecamp"),
    ("Violin", "Orchestra", "Melody", "Jazz", "Piano", "Ballad", "Rhythm", "Concert"),
    ("Garden", "Meadow", "Rose", "Beekeeper", "Willow", "Seedling", "Hedgerow", "Greenhouse"),
)
# fmt: off
ADJECTIVES = (
    "Silent", "Crimson", "Forgotten", "Hidden", "Golden", "Broken", "Distant", "Gentle", "Burning", "Frozen",
    "Little", "Last", "Northern", "Secret", "Wandering", "Endless", "Hollow", "Bright", "Ancient", "Restless",
)
FORMS = (
    "Stories", "A Novel", "A Handbook", "A History", "Letters", "An Anthology", "A Memoir", "Essays",
    "The Illustrated Guide", "Notes",
)
# fmt: on
START = 1_500_000_000
DAY = 86_400


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the made-up log; ``demo`` uses the defaults.

    Attributes
    ----------
    n_users, n_items : int
        Size. Every community has the same number of items, give or take one.
    min_length, max_length : int
        Bounds of a history; lengths are spread evenly between them.
    n_tastes : int
        Communities that one user reads from.
    persistence : float
        Probability that the taste stays the same from one event to the next.
    focus : float
        Probability that an event follows the taste; other events follow popularity alone.
    popularity_exponent : float
        Item of rank r within its community is drawn in proportion to ``r ** -exponent``.
    fashion : float
        Strength of the drift that all users share: the weight of a community rises and falls over time.
    title_agreement : float
        Probability that the noun of a title belongs to the item's community.
    """

    n_users: int = 800
    n_items: int = 400
    min_length: int = 12
    max_length: int = 32
    n_tastes: int = 3
    persistence: float = 0.85
    focus: float = 0.85
    popularity_exponent: float = 0.7
    fashion: float = 0.5
    title_agreement: float = 0.7

    def __post_init__(self) -> None:
        n_communities = len(NOUNS)
        if not 3 <= self.min_length <= self.max_length:
            raise ConfigError(
                f"Histories need 3 events or more, and min_length ≤ max_length; got {self.min_length} and "
                f"{self.max_length}."
            )
        # A history has no item twice, so a community must have enough items for one history.
        if self.n_users < 1 or self.n_items < n_communities * self.max_length:
            raise ConfigError(
                f"The demo needs a user, and {n_communities} × max_length items so no community runs out; "
                f"got n_users={self.n_users}, n_items={self.n_items}, max_length={self.max_length}."
            )
        if not 1 <= self.n_tastes <= n_communities:
            raise ConfigError(f"n_tastes must lie in 1…{n_communities}; got {self.n_tastes}.")
        for name in ("persistence", "focus", "title_agreement"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is a probability, 0…1; got {getattr(self, name)}.")
        for name in ("popularity_exponent", "fashion"):
            if not 0.0 <= getattr(self, name) < 10.0:
                raise ConfigError(f"{name} must lie in [0, 10); got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class DemoWorld:
    """A made-up log with the hidden variables that produced it.

    Attributes
    ----------
    dataset : Dataset
        What a model reads: histories and titles. Item and user indices are those of the arrays below.
    item_community : (n_items,) int
        Community of each item.
    item_popularity : (n_items,) float
        Probability of the item within its community, sums to 1 there.
    title_community : (n_items,) int
        Community of the noun in the title.
    taste_paths : list of (length,) int arrays
        Community that each user follows at each event of their history.
    timestamps : list of (length,) int arrays
        Seconds since 1970, increasing within a user.
    """

    dataset: Dataset
    item_community: IntArray
    item_popularity: FloatArray
    title_community: IntArray
    taste_paths: list[IntArray]
    timestamps: list[IntArray]

    def to_frame(self) -> pd.DataFrame:
        """Return the log as a table with the columns user_id, item_id, timestamp, title; one row per event."""
        data = self.dataset
        assert data.item_titles is not None
        items = np.concatenate(data.sequences)
        return pd.DataFrame(
            {
                "user_id": np.repeat(data.user_ids, [len(s) for s in data.sequences]),
                "item_id": data.item_ids[items],
                "timestamp": np.concatenate(self.timestamps),
                "title": np.array(data.item_titles, dtype=object)[items],
            }
        )


@dataclass(frozen=True, eq=False)
class DemoTruth:
    """What is known of the items of the demo data set, for states whose contents are to be known.

    Attributes
    ----------
    communities : (n_items, n_communities) float
        1 in the column of the item's community, else 0: which items go together.
    log_counts : (n_items,) float
        Standardised log(1 + training interactions): how popular the items are.
    """

    communities: FloatArray
    log_counts: FloatArray


def demo_truth(world: DemoWorld) -> DemoTruth:
    """Return the taste and the popularity of the items of a made-up log, in the order of its item indices."""
    counts = np.asarray(world.dataset.train.user_items.sum(axis=0), dtype=np.float64).ravel()
    log_counts = np.log1p(counts)
    communities = np.eye(len(NOUNS))[world.item_community]
    return DemoTruth(communities, (log_counts - log_counts.mean()) / log_counts.std())


def make_demo(config: DemoConfig | None = None, *, seed: int = 0) -> DemoWorld:
    r"""Return a made-up bookshop; the same settings and seed give the same data.

    Items belong to latent communities, and some are far more popular than others. A user reads from a few communities,
    stays with one for a while and then moves to another, at times that differ between users:

    .. math:: P(c_{t+1} = c_t) = \text{persistence}, \qquad
              P(c_{t+1} = c \mid \text{move}) \propto e^{\text{fashion} \cdot \cos(2\pi (s_{t+1} - c / C))}

    with :math:`s` the event's position in calendar time. The common fashion makes the histories of all users similar.
    The times of the moves differ between users and tie a user's states to that user's items; this part exceeds the
    swap null.

    Titles carry part of the community: the noun belongs to it with probability ``title_agreement``, the other words
    are independent of it. The text of an item and its co-occurrences therefore carry different information.

    Notes
    -----
    Source: none; for tests, tutorials and first runs. Only uniform draws are taken from the generator: NumPy may change
    how it derives other distributions from them, which would change the data.
    """
    config = config or DemoConfig()
    rng = np.random.default_rng(seed)
    n_communities = len(NOUNS)
    item_community = np.argsort(rng.random(config.n_items)) % n_communities
    members = [np.flatnonzero(item_community == c) for c in range(n_communities)]
    item_popularity = np.empty(config.n_items)
    for items in members:
        rank = np.argsort(rng.random(len(items))) + 1.0
        item_popularity[items] = rank**-config.popularity_exponent / np.sum(rank**-config.popularity_exponent)
    titles, title_community = _titles(rng, item_community, config.title_agreement)

    sequences, paths, timestamps = [], [], []
    for _ in range(config.n_users):
        length = config.min_length + int(rng.random() * (config.max_length - config.min_length + 1))
        # Each user starts on a random day; all histories lie within about ten years.
        gaps = np.maximum((-np.log1p(-rng.random(length)) * 20 * DAY).astype(np.int64), 1)
        times = START + int(rng.random() * 3000) * DAY + np.cumsum(gaps)
        path = _taste_path(rng, times, config)
        sequences.append(_events(rng, path, item_community, item_popularity, config))
        paths.append(path)
        timestamps.append(times)
    log = Interactions.from_sequences(
        sequences,
        user_ids=np.array([f"u{u + 1:04d}" for u in range(config.n_users)], dtype=object),
        item_ids=np.array([f"b{i + 1:04d}" for i in range(config.n_items)], dtype=object),
    )
    # The name is the argument that loads this data set.
    dataset = Dataset.from_interactions(log, item_titles=titles, name=f"demo:{seed}" if seed else "demo")
    return DemoWorld(dataset, item_community, item_popularity, title_community, paths, timestamps)


def _pick(rng: np.random.Generator, weights: FloatArray) -> int:
    """Return an index, drawn in proportion to the weights."""
    return int(
        np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right").clip(0, len(weights) - 1)
    )


def _taste_path(rng: np.random.Generator, times: IntArray, config: DemoConfig) -> IntArray:
    """Return the community that a user follows at each event."""
    n_communities = len(NOUNS)
    tastes = np.argsort(rng.random(n_communities))[: config.n_tastes]
    # The period of the fashion is five years.
    phase = (times - START) / (1826 * DAY)
    weights = np.exp(config.fashion * np.cos(2 * np.pi * (phase[:, None] - tastes / n_communities)))
    path = np.empty(len(times), dtype=np.int64)
    current = _pick(rng, weights[0])
    for t in range(len(times)):
        if t and len(tastes) > 1 and rng.random() >= config.persistence:
            other_weights = weights[t].copy()
            other_weights[current] = 0.0
            current = _pick(rng, other_weights)
        path[t] = tastes[current]
    return path


def _events(
    rng: np.random.Generator,
    path: IntArray,
    item_community: IntArray,
    item_popularity: FloatArray,
    config: DemoConfig,
) -> IntArray:
    """Return a history that follows the path; no item occurs twice."""
    weights = item_popularity.copy()
    items = np.empty(len(path), dtype=np.int64)
    for t, community in enumerate(path):
        follows = rng.random() < config.focus
        items[t] = _pick(rng, np.where(item_community == community, weights, 0.0) if follows else weights)
        weights[items[t]] = 0.0
    return items


def _titles(rng: np.random.Generator, item_community: IntArray, agreement: float) -> tuple[list[str], IntArray]:
    """Return a title for every item, no two alike, and the community its noun belongs to."""
    titles: dict[str, None] = {}
    title_community = np.empty(len(item_community), dtype=np.int64)
    for item, community in enumerate(item_community):
        if rng.random() >= agreement:
            community = (community + 1 + int(rng.random() * (len(NOUNS) - 1))) % len(NOUNS)
        title_community[item] = community
        title = _title(rng, community)
        while title in titles:
            title = _title(rng, community)
        titles[title] = None
    return list(titles), title_community


def _title(rng: np.random.Generator, community: int) -> str:
    adjective, noun, form = (words[int(rng.random() * len(words))] for words in (ADJECTIVES, NOUNS[community], FORMS))
    return f"The {adjective} {noun}: {form}"
