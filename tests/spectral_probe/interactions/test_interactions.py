"""Interaction logs, the leave-one-out split, and what is probed."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset, leave_one_out
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import ProbeSequences, batches_by_length, probe_sequences


def histories_of(log: Interactions) -> dict[object, list[object]]:
    """Return {user label: item labels in order}, the content of a log apart from its numbering."""
    return {
        user: [log.item_ids[i] for i in sequence] for user, sequence in zip(log.user_ids, log.sequences(), strict=True)
    }


def expected_histories(rows: list[tuple[str, str, float]]) -> dict[object, list[object]]:
    """Insert every row behind the last row that is not later: insertion sort, so that ties keep the file's order."""
    histories: dict[str, list[tuple[float, str]]] = {}
    for user, item, time in rows:
        history = histories.setdefault(user, [])
        index = len(history)
        while index and history[index - 1][0] > time:
            index -= 1
        history.insert(index, (time, item))
    return {user: [item for _, item in history] for user, history in histories.items()}


def a_table(n_rows: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": [f"u{u}" for u in rng.integers(0, 12, n_rows)],
            "item_id": [f"i{i}" for i in rng.integers(0, 30, n_rows)],
            "timestamp": rng.integers(0, 20, n_rows),
        }
    )


def a_log(lengths: list[int], n_items: int = 30, seed: int = 1) -> Interactions:
    rng = np.random.default_rng(seed)
    return Interactions.from_sequences([rng.integers(0, n_items, n) for n in lengths], n_items=n_items)


# --- reading a table ---------------------------------------------------------------------------------------------


def test_rows_are_ordered_by_time_and_ties_keep_the_order_of_the_table():
    table = a_table()
    rows = list(table.itertuples(index=False, name=None))
    assert len(set(table["timestamp"])) < len(table) / 10, "the table must be full of ties"
    assert histories_of(Interactions.from_frame(table)) == expected_histories(rows)


def test_without_a_time_column_the_order_of_the_table_is_the_order_of_the_history():
    table = a_table()
    rows = [(user, item, 0.0) for user, item, _ in table.itertuples(index=False, name=None)]
    assert histories_of(Interactions.from_frame(table, time=None)) == expected_histories(rows)


def test_users_are_numbered_by_the_table_and_items_by_the_ordered_log():
    table = pd.DataFrame({"user_id": ["b", "a", "b"], "item_id": ["z", "y", "x"], "timestamp": [9, 1, 2]})
    log = Interactions.from_frame(table)
    assert log.user_ids.tolist() == ["b", "a"]
    assert log.item_ids.tolist() == ["x", "z", "y"]
    assert [s.tolist() for s in log.sequences()] == [[0, 1], [2]]


def test_the_index_of_the_table_does_not_matter():
    table = a_table()
    shifted = table.set_index(np.arange(len(table))[::-1] + 1000)
    assert histories_of(Interactions.from_frame(shifted)) == histories_of(Interactions.from_frame(table))


@pytest.mark.parametrize(
    "as_time",
    [
        lambda t: pd.to_datetime(t, unit="D"),
        lambda t: pd.to_datetime(t, unit="D").astype(str),
        lambda t: pd.to_datetime(t, unit="D", utc=True),
        lambda t: pd.to_datetime(t, unit="D").dt.date,
        lambda t: t.astype(str),
        lambda t: t.astype(float) / 7,
        lambda t: t.astype("Int64"),
        lambda t: t.astype(object),
    ],
    ids=["datetime", "ISO text", "datetime with zone", "date", "numbers as text", "float", "nullable", "object"],
)
def test_equal_times_in_another_notation_give_the_same_histories(as_time):
    table = a_table()
    other = table.assign(timestamp=as_time(table["timestamp"]))
    assert histories_of(Interactions.from_frame(other)) == histories_of(Interactions.from_frame(table))


def test_times_as_text_with_zones_are_compared_as_instants():
    times = ["2020-01-02T03:00:00Z", "2020-01-02T03:30:00+02:00"]
    table = pd.DataFrame({"user_id": [1, 1], "item_id": ["late", "early"], "timestamp": times})
    assert histories_of(Interactions.from_frame(table)) == {1: ["early", "late"]}


def test_text_that_is_neither_number_nor_iso_date_is_refused_not_sorted_by_letter():
    table = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": ["31/12/2019", "01/01/2020"]})
    with pytest.raises(DataError, match=r"'timestamp'.*'31/12/2019'.*to_datetime"):
        Interactions.from_frame(table)


def test_other_column_names_are_given_by_argument():
    table = a_table().rename(columns={"user_id": "who", "item_id": "what", "timestamp": "when"})
    log = Interactions.from_frame(table, user="who", item="what", time="when")
    assert histories_of(log) == histories_of(Interactions.from_frame(a_table()))


def test_an_unknown_column_is_named_with_the_nearest_known_one():
    table = a_table().rename(columns={"timestamp": "timestmp"})
    with pytest.raises(DataError, match=r"No column 'timestamp'.*'timestmp'.*Did you mean 'timestmp'\?.*time="):
        Interactions.from_frame(table)


@pytest.mark.parametrize("twice", ["item_id", "comment"])
def test_two_columns_of_one_name_are_refused(twice):
    table = a_table().assign(comment="")
    table = pd.concat([table, table[[twice]]], axis=1)
    with pytest.raises(DataError, match=rf"same name: \['{twice}'\].*Rename or drop"):
        Interactions.from_frame(table)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_time_that_is_not_finite_is_refused_with_its_row(bad):
    table = a_table().astype({"timestamp": float})
    table.loc[17, "timestamp"] = bad
    with pytest.raises(DataError, match=r"'timestamp' is empty or not finite in 1 of 300 rows, first in row 17 .*Drop"):
        Interactions.from_frame(table)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_a_missing_value_is_refused_in_every_column(column):
    table = a_table().astype(object)
    table.loc[5, column] = None
    with pytest.raises(DataError, match=rf"'{column}' .*is empty .* first in row 5 "):
        Interactions.from_frame(table)


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_an_infinite_label_is_refused(column):
    table = a_table().assign(user_id=1.0, item_id=2.0)
    table.loc[4, column] = np.inf
    with pytest.raises(DataError, match=rf"'{column}' .*not finite in 1 of 300 rows, first in row 4 "):
        Interactions.from_frame(table)


def test_a_missing_nullable_time_is_refused():
    table = a_table().astype({"timestamp": "Int64"})
    table.loc[2, "timestamp"] = pd.NA
    with pytest.raises(DataError, match="first in row 2 "):
        Interactions.from_frame(table)


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match=r"no rows.*Check the file"):
        Interactions.from_frame(a_table().iloc[:0])


# --- the log -----------------------------------------------------------------------------------------------------


def test_user_items_is_binary_whatever_the_repeats():
    log = a_log([40, 3, 9], n_items=7)
    expected = np.zeros((3, 7), dtype=int)
    for u, sequence in enumerate(log.sequences()):
        for item in sequence:
            expected[u, item] = 1
    np.testing.assert_array_equal(log.user_items.toarray(), expected)
    assert log.n_events == 52
    assert log.lengths().tolist() == [40, 3, 9]


@pytest.mark.parametrize("sequences", [[[0, 5]], [[-1, 2]]])
def test_an_item_outside_the_catalogue_is_refused(sequences):
    with pytest.raises(DataError, match=r"must lie in 0…4; seen .*Re-index"):
        Interactions.from_sequences(sequences, n_items=5)


@pytest.mark.parametrize("sequences", [[], [[]]])
def test_a_log_without_events_is_refused(sequences):
    with pytest.raises(DataError, match="at least one event"):
        Interactions.from_sequences(sequences)


def test_labels_must_be_as_many_as_users_and_items():
    with pytest.raises(DataError, match=r"1 sequences over 3 items came with 2 user labels and 3 item labels"):
        Interactions.from_sequences([[0, 1]], n_items=3, user_ids=[0, 1])


def test_a_subset_keeps_every_number_of_user_and_item():
    log = a_log([4, 5, 6])
    keep = np.random.default_rng(0).random(log.n_events) < 0.4
    keep[:4] = False
    part = log.subset(keep)
    offset = 0
    for before, after in zip(log.sequences(), part.sequences(), strict=True):
        assert after.tolist() == [i for j, i in enumerate(before) if keep[offset + j]]
        offset += len(before)
    assert (part.n_users, part.n_items) == (log.n_users, log.n_items)


# --- the split ---------------------------------------------------------------------------------------------------


def test_leave_one_out_takes_the_last_two_items_and_leaves_short_histories_whole():
    log = a_log([1, 2, 3, 4, 9])
    train = leave_one_out(log)
    expected = [s.tolist() if len(s) < 3 else s.tolist()[:-2] for s in log.sequences()]
    assert [s.tolist() for s in train.sequences()] == expected
    assert [len(s) for s in expected] == [1, 2, 1, 2, 7]


def test_a_data_set_holds_whole_histories_and_the_training_part_alone():
    log = a_log([1, 3, 8])
    data = Dataset.from_interactions(log, name="toy")
    assert [s.tolist() for s in data.sequences] == [s.tolist() for s in log.sequences()]
    assert [s.tolist() for s in data.train.sequences()] == [s.tolist() for s in leave_one_out(log).sequences()]
    assert (data.n_users, data.n_items) == (3, 30)


@pytest.mark.parametrize("leak", ["test item", "validation item", "both", "other order", "too little"])
def test_a_data_set_whose_training_part_is_not_its_histories_less_two_is_refused(leak):
    log = a_log([5, 6, 7])
    cut = {"test item": slice(0, -1), "validation item": slice(0, -2), "both": slice(None)}.get(leak, slice(0, -2))
    sequences = [s[cut].copy() for s in log.sequences()]
    if leak == "validation item":
        sequences[1] = np.append(sequences[1], log.sequences()[1][-2])
    elif leak == "other order":
        sequences[1] = sequences[1][::-1].copy()
        assert not np.array_equal(sequences[1], log.sequences()[1][:-2])
    elif leak == "too little":
        sequences[2] = sequences[2][:-1]
    train = Interactions.from_sequences(sequences, n_items=log.n_items)
    with pytest.raises(DataError, match=r"'toy' is not its histories without their last two items.*from_interactions"):
        Dataset(train, log.sequences(), log.user_ids, log.item_ids, name="toy")


def test_a_data_set_with_other_users_or_titles_than_its_training_part_is_refused():
    log = a_log([5, 6])
    with pytest.raises(DataError, match="1 histories but 2 training users"):
        Dataset(leave_one_out(log), log.sequences()[:1], log.user_ids, log.item_ids)
    with pytest.raises(DataError, match=r"2 titles for 30 items.*one title per item"):
        Dataset.from_interactions(log, item_titles=["a", "b"])
    with pytest.raises(DataError, match="3 user labels"):
        Dataset(leave_one_out(log).subset(np.ones(7, bool)), log.sequences(), np.arange(3), log.item_ids).fingerprint()


def test_equal_data_have_equal_fingerprints_and_any_change_another():
    log = a_log([5, 6])
    titles = [f"title {i}" for i in range(30)]
    base = Dataset.from_interactions(log, item_titles=titles)
    same = Dataset.from_interactions(a_log([5, 6]), item_titles=list(titles))
    swapped = [log.sequences()[0][[1, 0, 2, 3, 4]], log.sequences()[1]]
    changed = [
        Dataset.from_interactions(log),
        Dataset.from_interactions(log, item_titles=["x", *titles[1:]]),
        Dataset.from_interactions(Interactions.from_sequences(swapped, n_items=30), item_titles=titles),
        Dataset.from_interactions(Interactions.from_sequences(log.sequences(), n_items=31)),
    ]
    assert base.fingerprint() == same.fingerprint()
    assert len({d.fingerprint() for d in (base, *changed)}) == 5


# --- what is probed ----------------------------------------------------------------------------------------------


def rows_of(probe: ProbeSequences) -> dict[int, tuple[list[int], list[int]]]:
    return {
        int(user): (inputs[:n].tolist(), targets[:n].tolist())
        for inputs, targets, n, user in zip(probe.inputs, probe.targets, probe.lengths, probe.users, strict=True)
    }


@pytest.mark.parametrize(("part", "held_out"), [("train", 2), ("valid", 1), ("full", 0)])
@pytest.mark.parametrize("max_length", [1, 4, 50])
def test_probed_are_the_most_recent_targets_of_each_part(part, held_out, max_length):
    data = Dataset.from_interactions(a_log([1, 2, 3, 4, 5, 6, 12, 30]))
    expected = {}
    for user, sequence in enumerate(data.sequences):
        history = sequence.tolist()
        if len(history) < 3:
            continue
        visible = history[: len(history) - held_out]
        pairs = list(itertools.pairwise(visible))[-max_length:]
        if pairs:
            expected[user] = ([a for a, _ in pairs], [b for _, b in pairs])
    probe = probe_sequences(data, part=part, max_length=max_length)
    assert rows_of(probe) == expected
    assert len(probe) == len(expected)
    assert probe.targets.shape[1] == probe.lengths.max() <= max_length


def test_the_validation_item_is_the_last_target_by_default_and_the_test_item_is_not_seen():
    data = Dataset.from_interactions(Interactions.from_sequences([np.arange(9)]))
    probe = probe_sequences(data)
    assert probe.targets.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert probe.inputs.tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_padding_is_zero_and_lengths_tell_the_truth():
    data = Dataset.from_interactions(Interactions.from_sequences([np.full(4, 3), np.full(7, 3)]))
    probe = probe_sequences(data)
    assert probe.lengths.tolist() == [2, 5]
    assert probe.targets.tolist() == [[3, 3, 0, 0, 0], [3] * 5]


def test_a_draw_of_users_is_fixed_by_the_seed_and_without_repeats():
    data = Dataset.from_interactions(a_log([6] * 50))
    first, again = (probe_sequences(data, max_users=10, seed=3) for _ in range(2))
    other = probe_sequences(data, max_users=10, seed=4)
    assert first.users.tolist() == again.users.tolist() == sorted(set(first.users.tolist()))
    assert len(first) == 10
    assert first.users.tolist() != other.users.tolist()
    assert len(probe_sequences(data, max_users=500)) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "vaild"}, r"one of full, train, valid; got 'vaild'\. Did you mean 'valid'\?"),
        ({"max_length": 0}, r"max_length must be at least 1; got 0"),
        ({"max_users": 0}, r"users must be at least 1; got 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        probe_sequences(Dataset.from_interactions(a_log([6])), **options)


def test_a_data_set_of_short_histories_cannot_be_probed():
    with pytest.raises(DataError, match=r"'short' has at least three.*Use longer histories"):
        probe_sequences(Dataset.from_interactions(a_log([1, 2, 2]), name="short"))


def test_batches_hold_every_row_once_and_put_like_lengths_together():
    lengths = np.random.default_rng(0).integers(1, 9, 23)
    batches = list(batches_by_length(lengths, 4))
    assert sorted(np.concatenate(batches).tolist()) == list(range(23))
    assert [len(b) for b in batches] == [4, 4, 4, 4, 4, 3]
    assert np.all(np.diff(lengths[np.concatenate(batches)]) <= 0)
