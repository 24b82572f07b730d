"""The floor plan: folders, import directions, public faces, one way to write a file, functions a reader can hold."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spectral_probe", "frellm4rec")
#: The contract of names in the two top faces.
FACES = {
    "spectral_probe": (
        *("Interactions", "Dataset", "leave_one_out", "ItemGraph", "GraphBases", "capture", "LayerGrams"),
        *("spectral_energy", "SpectralEnergy", "DecayProfile", "analyze", "compare", "LayeredModel", "load_backbone"),
        "wrap",
    ),
    "frellm4rec": (
        *("GraphLowPassFilter", "TemporalFrequencyModulation", "FusionMLP", "FreLLM4Rec", "FreLLM4RecConfig"),
        *("SASRec", "SASRecConfig", "SequentialRecommender", "RecommenderConfig", "load_model"),
        *("ndcg_at_k", "recall_at_k", "sample_candidates", "train", "evaluate", "recommend"),
    ),
}
#: What may have loaded torch once it is imported: folders, and single modules of folders that otherwise may not.
MAY_LOAD_TORCH = (
    *("spectral_probe.backbones", "spectral_probe.inputs", "spectral_probe.recording", "spectral_probe.plugins"),
    *("spectral_probe.analysis", "spectral_probe.doctor.self_test"),
    *("frellm4rec.modules", "frellm4rec.items", "frellm4rec.theory", "frellm4rec.models", "frellm4rec.training"),
    *("frellm4rec.runs", "frellm4rec.experiments.runner", "frellm4rec.tuning.search", "frellm4rec.experiments.tuned"),
    "frellm4rec.experiments.longer",
)
#: What must not load torch although its folder may.
LIGHT = (
    *("spectral_probe.recording.layer_grams", "spectral_probe.recording.shards", "spectral_probe.plugins.registry"),
    "spectral_probe.plugins.saved_models",
    *(
        "spectral_probe.plugins.datasets",
        "spectral_probe.analysis.options",
        "spectral_probe.backbones.aliases",
        "spectral_probe.backbones.packaged",
    ),
    *(
        "frellm4rec.runs.recipe",
        "frellm4rec.runs.evaluations",
        "frellm4rec.runs.comparison",
        "frellm4rec.models.registry",
    ),
)
#: Functions of more than 60 lines without their docstring, and why.
LONG_FUNCTIONS: dict[str, str] = {}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# --- imports -----------------------------------------------------------------------------------------------------

#: Imports every module named on stdin in a process of its own, forked before anything but the basics is loaded.
IMPORT_EACH = """
import json, os, sys
import numpy, pandas, scipy.sparse
loaded = {}
for name in sys.stdin.read().split():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
            heavy = [library for library in ("torch", "transformers", "matplotlib") if library in sys.modules]
            os.write(writing, json.dumps(heavy).encode())
        except BaseException as error:
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        loaded[name] = json.loads(pipe.read())
    os.waitpid(child, 0)
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What each module of both packages has loaded when it alone is imported."""
    names = [module_name(path) for path in sources(*PACKAGES)]

    def import_each(part: list[str]) -> dict[str, list[str]]:
        environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_EACH], input="\n".join(part), capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(import_each, [names[0::2], names[1::2]]))
    return halves[0] | halves[1]


def test_every_module_can_be_imported_alone(loaded) -> None:
    assert {name: error for name, error in loaded.items() if isinstance(error, str)} == {}
    assert len(loaded) > 150


def test_only_what_runs_a_model_loads_torch(loaded) -> None:
    with_torch = sorted(name for name, libraries in loaded.items() if "torch" in libraries)
    print(f"{len(with_torch)} of {len(loaded)} modules load torch:", *with_torch, sep="\n")
    allowed = tuple(f"{name}." for name in MAY_LOAD_TORCH)
    assert [name for name in with_torch if not f"{name}.".startswith(allowed)] == []
    assert [name for name in LIGHT if "torch" in loaded[name]] == []
    assert "spectral_probe.recording.capture" in with_torch  # the list is not empty for another reason


def test_the_light_part_of_the_contract_loads_no_torch(loaded) -> None:
    for name in (
        *("spectral_probe", "frellm4rec", "frellm4rec.evaluation.metrics", "spectral_probe.runs"),
        *("spectral_probe.runs.folder", "spectral_probe.runs.analysis_run", "spectral_probe.recording.layer_grams"),
        *("frellm4rec.runs.recipe", "frellm4rec.experiments.tables", "spectral_probe.cli.main", "frellm4rec.cli.main"),
    ):
        assert "torch" not in loaded[name], name
    assert loaded["spectral_probe"] == loaded["frellm4rec"] == []
    assert "matplotlib" not in loaded["spectral_probe.profiles.profile"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_the_contract_is_importable_from_the_top(package) -> None:
    names = FACES[package]
    code = (
        f"import sys, {package} as top\nassert 'torch' not in sys.modules\nfrom {package} import {', '.join(names)}\n"
    )
    code += "print(*(f'{name}={getattr(top, name).__module__}' for name in top.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    public = dict(entry.split("=") for entry in done.stdout.split())
    assert set(names) <= set(public)
    assert all(module.startswith(f"{package}.") for module in public.values())


def test_the_names_of_the_faces_without_torch_load_none() -> None:
    light = (
        "Dataset, Interactions, leave_one_out, ItemGraph, GraphBases, LayerGrams, SpectralEnergy, DecayProfile, compare"
    )
    code = f"import sys\nfrom spectral_probe import {light}\nfrom frellm4rec import ndcg_at_k, recall_at_k, evaluate\n"
    done = subprocess.run([sys.executable, "-c", f"{code}\nassert 'torch' not in sys.modules"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


# --- folders -----------------------------------------------------------------------------------------------------


def folders(package: str) -> list[str]:
    return sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


@pytest.mark.parametrize(("package", "contract"), [("spectral_probe", "instrument"), ("frellm4rec", "recommender")])
def test_import_linter_holds_every_folder(package, contract) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    section = config[f"importlinter:contract:{contract}"]
    held = set(re.findall(r"\w+", section["layers"]))
    single = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert set(folders(package)) | single == held
    assert section["exhaustive"] == "true"
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for name in sorted(held) if f"`{name}`" not in page and f"`{name}/`" not in page] == []


def test_folders_re_export_nothing_but_through_their_face() -> None:
    for path in sources(*PACKAGES):
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert ast.get_docstring(tree), path
        if path.parent.name == "frellm4rec" and path.parent.parent == ROOT:
            # Its face has one more way: the class of a registered model, whatever package brings it.
            assert [ast.unparse(node) for node in imports if "registry" not in ast.unparse(node)] == [
                "from typing import Any",
                "import lazy_loader",
            ]
        elif path.with_suffix(".pyi").exists():
            assert [ast.unparse(node) for node in imports] == ["import lazy_loader"], path
        else:
            assert imports == [], path


def test_the_tests_mirror_the_packages() -> None:
    helpers = {"__init__", "conftest", "worlds", "tiny_models", "tiny_recommenders"}
    for path in sources("tests"):
        assert (path.parent / "__init__.py").exists(), path.parent
        # The harness of hostile inputs is a program of its own.
        assert path.stem in helpers or path.stem.startswith("test_") or "hostile" in path.parts, path
    for package in (*PACKAGES, "benchmarks"):
        mirrored = {path.parent.name for path in (ROOT / "tests" / package).glob("*/__init__.py")}
        assert mirrored <= set(folders(package)), package
        assert mirrored, package


def test_no_test_takes_a_helper_from_another_test() -> None:
    for path in sources("tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                assert not node.module.rpartition(".")[2].startswith("test_"), path


# --- one way to write a file -------------------------------------------------------------------------------------

#: A call that writes, and what it is called on or given.
WRITERS = {"write_text", "write_bytes", "to_csv", "savefig", "save_file", "write_table", "dump", "touch"}
NUMPY_WRITERS = {"save", "savez", "savez_compressed", "savetxt"}


def writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of every call that opens, writes, renames or hashes a file by itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            if names & {"hashlib", "tempfile"}:
                yield node.lineno, ast.unparse(node)
        if not isinstance(node, ast.Call):
            continue
        text, name = ast.unparse(node), ast.unparse(node.func).rpartition(".")[2]
        owner = ast.unparse(node.func).rpartition(".")[0]
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        opens_to_write = name == "open" and any(re.fullmatch(r"[wax]\+?b?|[wax]b?\+?", mode) for mode in modes)
        is_method = isinstance(node.func, ast.Attribute)
        if (
            opens_to_write
            or (is_method and name in WRITERS)
            or name == "save_file"
            or (owner in ("np", "numpy") and name in NUMPY_WRITERS)
            or (owner in ("os", "shutil") and name in ("replace", "rename", "move", "copyfile", "copy"))
        ):
            yield node.lineno, text


def test_every_write_goes_through_storage() -> None:
    """Outside storage/ a file is written to a path named ``partial``, which whole_file() or whole_folder() gave."""
    astray = []
    for path in sources(*PACKAGES):
        if path.parent.name == "storage":
            continue
        source = path.read_text(encoding="utf-8")
        calls = list(writes(ast.parse(source)))
        astray += [f"{path.relative_to(ROOT)}:{line}: {text}" for line, text in calls if "partial" not in text]
        assert not calls or re.search(r"whole_file|whole_folder|scratch_folder", source), path
    assert astray == []


def test_the_scan_for_writes_sees_what_it_must() -> None:
    by_itself = """import hashlib
open(p, 'w')
p.open('wb')
Path(p).write_text(t)
df.to_csv(p)
np.savez(p, a=a)
os.replace(a, b)
figure.savefig(p)
save_file(t, p)"""
    for line in by_itself.splitlines():
        assert len(list(writes(ast.parse(line)))) == 1, line
    for line in ("open(p)", "open(p, 'rb')", "text.replace('a', 'b')", "write_text(p, t)", "model.save(p)"):
        assert list(writes(ast.parse(line))) == [], line


# --- nobody asks which model it is -------------------------------------------------------------------------------


def test_nothing_outside_a_model_knows_its_class_or_its_mode() -> None:
    """Only models import a model; the loop, the evaluator and the runs ask traits. Names of modes are for people."""
    from frellm4rec.models.registry import model_entry, model_names

    modules = {model_entry(name).module for name in model_names()}
    modules |= {module.removesuffix(".model") + ".config" for module in modules}
    astray = []
    for path in sources("frellm4rec"):
        if "models" in path.relative_to(ROOT).parts:
            continue
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                astray.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.module}")
        if {"training", "evaluation", "runs"} & set(path.parts) and "two_sided_leaky" in text:
            astray.append(f"{path.relative_to(ROOT)}: two_sided_leaky")
    assert astray == []
    assert len(modules) > 5


# --- functions a reader can hold ---------------------------------------------------------------------------------


def test_no_function_has_more_than_sixty_lines_without_a_reason() -> None:
    too_long = {}
    for path in sources(*PACKAGES, "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                has_docstring = ast.get_docstring(node) is not None
                n_lines = node.end_lineno - node.lineno + 1
                n_lines -= (first.end_lineno - first.lineno + 1) if has_docstring else 0
                if n_lines > 60:
                    too_long[f"{module_name(path)}.{node.name}"] = n_lines
    assert sorted(too_long) == sorted(LONG_FUNCTIONS), too_long


def test_no_module_has_more_than_four_hundred_lines() -> None:
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PACKAGES)}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_the_flags_of_analyze_are_options_of_an_analysis() -> None:
    from dataclasses import fields

    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.cli.analyze import OPTIONS

    names = {flag.setting or flag.name for flag in OPTIONS}
    options = {field.name for field in fields(AnalysisOptions)}
    # What the command line does not offer: for programs alone.
    assert options - names == {"prefixes", "n_bootstrap", "n_references", "whole_tau"}
    assert names <= options


#: Words that said only that something was obtained, or meant six different things.
VAGUE_NAMES = {"place", "places", "found", "own", "kept", "held", "said", "one", "some", "each"}


def test_names_say_what_they_hold() -> None:
    vague = []
    for path in sources(*PACKAGES, "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [getattr(node, attribute, None) for attribute in ("id", "arg", "attr", "name")]
            vague += [f"{path.relative_to(ROOT)}: {name}" for name in named if name in VAGUE_NAMES]
    assert vague == []
