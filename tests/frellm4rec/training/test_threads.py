"""Threads of a training: chosen by width, recorded, kept by a resumed run, and given back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.models.config import NARROW_BELOW
from frellm4rec.training import TrainingConfig, TrainingRecord, train
from frellm4rec.training.threads import check_same_threads, chosen_threads, limited_threads
from spectral_probe.errors import ConfigError
from tests.frellm4rec.tiny_recommenders import backbone, frellm4rec

CONFIG = TrainingConfig(n_epochs=3, batch_size=16, learning_rate=1e-2, validate_every=1, k=1, save_every=1)


def sasrec(n_features=16, n_items=12):
    return SASRec(SASRecConfig(n_items=n_items, max_length=8, n_features=n_features, n_inner=16))


@pytest.fixture(params=[1])
def process_threads(request):
    """Let PyTorch take this number of threads in the process."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def seen(monkeypatch):
    """The number of threads in each forward pass of SASRec."""
    threads, forward = [], SASRec.forward

    def spy(self, inputs, lengths):
        threads.append(torch.get_num_threads())
        return forward(self, inputs, lengths)

    monkeypatch.setattr(SASRec, "forward", spy)
    return threads


@pytest.mark.parametrize("process_threads", [2], indirect=True)
def test_only_a_narrow_model_takes_one_thread(process_threads):
    cpu = torch.device("cpu")
    assert chosen_threads(sasrec(NARROW_BELOW - 1), cpu) == 1
    assert chosen_threads(sasrec(NARROW_BELOW), cpu) == 2
    wide = frellm4rec(12, decoder=backbone(hidden_size=NARROW_BELOW), inputs="id")
    assert wide.width == NARROW_BELOW == wide.item_embeddings().shape[1]
    assert chosen_threads(wide, cpu) == 2
    assert chosen_threads(frellm4rec(12), cpu) == 1
    assert chosen_threads(wide, cpu, 3) == chosen_threads(sasrec(), cpu, 3) == 3
    assert chosen_threads(wide, torch.device("cuda"), 3) is None


def test_the_record_names_the_threads_that_ran_and_those_before_come_back(ring, seen, process_threads):
    assert train(sasrec(), ring, replace(CONFIG, n_epochs=1)).threads == 1
    assert set(seen) == {1}
    seen.clear()
    record = train(sasrec(), ring, replace(CONFIG, n_epochs=1), threads=2)
    assert (record.threads, set(seen), torch.get_num_threads()) == (2, {2}, 1)


def test_threads_come_back_after_an_error(process_threads):
    with pytest.raises(ZeroDivisionError), limited_threads(4):
        print(1 / (torch.get_num_threads() - 4))
    assert torch.get_num_threads() == 1


def test_the_same_number_gives_the_same_bytes(ring, process_threads):
    revisions = []
    for threads in (None, 1, 2, 2):
        model = frellm4rec(12, decoder=backbone(hidden_size=NARROW_BELOW), inputs="id", mode="causal")
        train(model, ring, replace(CONFIG, n_epochs=1), threads=threads)
        revisions.append(model.revision)
    assert revisions[0] == revisions[1]
    assert revisions[2] == revisions[3]


def test_a_resumed_training_keeps_the_threads_it_began_with(ring, seen, tmp_path, process_threads):
    straight = sasrec()
    record = train(straight, ring, CONFIG, threads=2)

    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(sasrec(), ring, CONFIG, threads=2, checkpoints=tmp_path, log=stop)
    with pytest.raises(ConfigError, match=r"began with 2; got 1\. .*--threads 2"):
        train(sasrec(), ring, CONFIG, threads=1, checkpoints=tmp_path, resume=True)
    seen.clear()
    resumed = sasrec()
    assert train(resumed, ring, CONFIG, checkpoints=tmp_path, resume=True) == record
    assert set(seen) == {2}
    assert resumed.revision == straight.revision


def test_more_threads_than_cpus_are_kept_and_reported(monkeypatch):
    said = []
    # Not caplog: a command that ran before in this process may have changed where messages go.
    monkeypatch.setattr("frellm4rec.training.threads.logger.warning", lambda text, *values: said.append(text % values))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    check_same_threads(2, 2)
    assert not said
    check_same_threads(64, None)
    assert "64 threads on 2 CPUs is slow" in said[0]
    check_same_threads(None, 5)  # a training that did not run on the CPU


def test_a_record_without_threads_is_of_one():
    """All trainings before the number was recorded took one thread, and the attention of the backbone."""
    record = TrainingRecord(**{"seed": 1, "best_epoch": 0, "epochs": [], "losses": [], "validation_ndcg": []})
    assert (record.threads, record.attention) == (1, None)


@pytest.mark.parametrize("threads", [0, True, 1.5])
def test_a_number_that_is_none_is_refused(threads, ring):
    with pytest.raises(ConfigError, match="threads must be a whole number of at least 1"):
        train(sasrec(), ring, CONFIG, threads=threads)
