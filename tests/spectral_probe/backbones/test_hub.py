"""The hub and its failures: one error each, with its own next step, within seconds."""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub import HfApi, constants, errors
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as model_logging

from spectral_probe.backbones import hub, load_backbone, weights_fingerprint
from spectral_probe.errors import ModelError, ResourceError
from tests.spectral_probe.tiny_models import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"


def answer(status: int, kind: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
    request = httpx2.Request("GET", "https://hub.invalid/owner/model")
    return kind(f"{status} Client Error.\n\nmore", response=httpx2.Response(status, request=request))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Return an empty cache of the hub's files, with nobody answering at the hub's address."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def online(cache, monkeypatch):
    """Return a function that sets what the hub says about every repository, or what it raises."""
    asked = []

    def says(outcome):
        def model_info(self, repository, **settings):
            asked.append((repository, settings["revision"]))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(HfApi, "model_info", model_info)
        return asked

    monkeypatch.setattr(hub, "unreachable", lambda endpoint: None)
    return says


def files(**sizes: int) -> SimpleNamespace:
    siblings = [SimpleNamespace(rfilename=name.replace("__", "."), size=size) for name, size in sizes.items()]
    return SimpleNamespace(sha=COMMIT, siblings=siblings)


WHOLE = files(config__json=10, model__safetensors=1000)


def fill(cache: Path, repository: str = "owner/model") -> Path:
    """Put a tiny model where the hub's client keeps what it fetched."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    tiny("llama").save_pretrained(folder / "snapshots" / COMMIT)
    (folder / ".no_exist" / COMMIT).mkdir(parents=True)
    (folder / ".no_exist" / COMMIT / "adapter_config.json").touch()
    return folder / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (answer(401, errors.GatedRepoError), r"gated.*Ask for access.*hf auth login"),
        (answer(403, errors.GatedRepoError), r"gated.*Ask for access"),
        (answer(401, errors.RepositoryNotFoundError), r"has no such repository.*spelling"),
        (answer(404, errors.RevisionNotFoundError), r"but not that revision.*leave the revision out"),
        (answer(403, errors.DisabledRepoError), r"disabled"),
    ],
)
def test_what_the_hub_refuses_is_told_apart(raised, says, online):
    online(raised)
    with pytest.raises(ModelError, match=f"'owner/model' could not be read: .*{says}") as caught:
        load_backbone("owner/model", revision="v1")
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["config", "weights"])
def test_a_gate_behind_the_door_is_found_among_the_causes(where, online, cache, monkeypatch):
    # The hub describes a gated repository to anybody, and refuses its files; transformers wraps that in an OSError.
    online(files(config__json=10, model__safetensors=1000))

    def refuse(*args, **kwargs):
        try:
            raise answer(403, errors.GatedRepoError)
        except errors.GatedRepoError as error:
            raise OSError("something\nunspecific") from error

    fill(cache)
    monkeypatch.setattr(AutoConfig if where == "config" else AutoModel, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"gated.*hf auth login"):
        load_backbone("owner/model")


@pytest.mark.parametrize(
    ("repository", "says"),
    [
        (files(README__md=1), r"no config\.json.*\(1 files seen\)"),
        (files(adapter_config__json=1, adapter_model__safetensors=1), r"It is an adapter.*--adapter"),
        (files(config__json=1, pytorch_model__bin=5), r"pickles only \(pytorch_model\.bin\)"),
        (files(config__json=1), r"holds no safetensors weights"),
    ],
)
def test_repositories_without_what_is_needed_are_refused_before_any_download(repository, says, online, monkeypatch):
    online(repository)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *a, **k: pytest.fail("asked for a file"))
    with pytest.raises(ModelError, match=says):
        load_backbone("owner/model")


def test_a_revision_is_pinned_to_its_commit_and_kept(online, cache):
    snapshot = fill(cache)
    asked = online(WHOLE)
    decoder = load_backbone("owner/model", revision="main")
    assert asked == [("owner/model", "main")]
    assert decoder.hub_revision == COMMIT
    assert decoder.revision == weights_fingerprint(load_backbone(str(snapshot)).model)[:16]
    assert load_backbone(str(snapshot)).hub_revision is None


@pytest.mark.parametrize("problem", ["unreachable", "offline", "slow", "broken"])
def test_what_was_fetched_earlier_serves_without_the_hub(problem, cache, online, monkeypatch, request):
    fill(cache)
    if problem == "unreachable":
        monkeypatch.setattr(hub, "unreachable", lambda endpoint: "nobody there")
    elif problem == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        online(httpx2.ReadTimeout("slow") if problem == "slow" else answer(503, errors.HfHubHTTPError))
    decoder = load_backbone("owner/model")
    assert decoder.hub_revision == COMMIT
    with pytest.raises(ModelError, match="was not fetched earlier"):
        load_backbone("owner/another")


def test_offline_mode_is_named_as_the_cause(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set, and it was not fetched earlier\. Unset"):
        load_backbone("qwen2.5-7b")


def test_too_little_room_is_found_before_the_download(online, cache, monkeypatch):
    online(files(config__json=10, model__safetensors=10**18))
    with pytest.raises(ResourceError, match=r"still to be fetched are 931322574\.6 GiB.*HF_HOME"):
        load_backbone("owner/model")
    fill(cache)  # what is there already takes no more room
    assert load_backbone("owner/model").hub_revision == COMMIT


def test_a_disk_that_fills_up_on_the_way_is_a_resource(online, cache, monkeypatch):
    online(WHOLE)
    fill(cache)

    def full(*args, **kwargs):
        raise RuntimeError("while writing") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AutoModel, "from_pretrained", full)
    with pytest.raises(ResourceError, match=r"No space left on device.*HF_HOME") as caught:
        load_backbone("owner/model")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("name", ["./modles/x", "modles/x", "../nowhere/at/all", "/no/such/folder", "~/no such folder"])
def test_a_mistyped_path_is_not_looked_up_on_the_hub(name, tmp_path, monkeypatch):
    (tmp_path / "models" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "unreachable", lambda endpoint: "nobody there")
    with pytest.raises(ModelError) as caught:
        load_backbone(name)
    if name == "modles/x":  # a repository can have this name
        assert "nobody there" in str(caught.value)
    else:
        assert f"There is no folder {name!r}" in str(caught.value)
    assert ("Did you mean 'models'" in str(caught.value)) == (name == "./modles/x")


def test_a_name_in_a_folder_that_is_here_may_be_either(tmp_path, cache, monkeypatch):
    (tmp_path / "models" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"was not fetched earlier.*holds no 'lama'\. Did you mean 'models/llama'"):
        load_backbone("models/lama")


def test_a_file_is_not_a_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is another file"):
        load_backbone(str(tmp_path / "model.safetensors"))


def test_a_name_that_is_looked_up_for_ever_has_a_deadline(monkeypatch):
    is_over = threading.Event()

    def look_up(*args, **kwargs):
        is_over.wait(30)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", look_up)
    start = time.perf_counter()
    assert hub.unreachable("https://hub.invalid", seconds=0.2) == "hub.invalid did not answer within 0.2 s"
    assert time.perf_counter() - start < 1
    is_over.set()


def test_an_address_that_answers_is_reachable_also_through_a_proxy(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert hub.unreachable(address) is None
        monkeypatch.setenv("https_proxy", address)
        assert hub.unreachable("https://hub.invalid") is None
        monkeypatch.setenv("no_proxy", "hub.invalid")
        assert "hub.invalid cannot be reached" in str(hub.unreachable("https://hub.invalid"))


def test_without_a_network_the_command_ends_soon_with_one_clean_line(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{u},i{(u + t) % 9},{t}\n" for u in range(30) for t in range(6))
    )
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    arguments = ["analyze", "--model", "qwen2.5-7b", "--dataset", "log.csv", "--inputs", "text"]
    main = "import sys, time, transformers, torch, pandas, spectral_probe.analysis.pipeline\n"
    main += "import spectral_probe.cli.main as cli\n"
    main += "start = time.perf_counter()\ntry:\n    cli.main()\nfinally:\n    print(time.perf_counter() - start)"
    done = subprocess.run(
        [sys.executable, "-c", main, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 4, done.stderr
    *stages, line = done.stderr.splitlines()
    assert stages == ["data log.csv", "model qwen2.5-7b"]
    assert line.startswith("error: Model 'Qwen/Qwen2.5-7B-Instruct' could not be read: 127.0.0.1 cannot be reached")
    # Imports apart, which take as long as the machine is busy.
    assert float(done.stdout.splitlines()[-1]) < 3


def test_bars_and_warnings_are_muted_for_a_while_only(monkeypatch, tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    before = model_logging.get_verbosity(), hub_logging.get_verbosity(), model_logging.is_progress_bar_enabled()
    with hub.quiet():
        assert not model_logging.is_progress_bar_enabled()
        assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.WARNING)
    load_backbone(str(tmp_path))
    assert stderr.getvalue() == ""
    after = model_logging.get_verbosity(), hub_logging.get_verbosity(), model_logging.is_progress_bar_enabled()
    assert after == before
    stderr.isatty = lambda: True
    with hub.quiet():
        assert not model_logging.is_progress_bar_enabled()
