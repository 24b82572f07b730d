"""What the documents show is run as it stands there."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.main import get_command

from benchmarks.pages import readme
from frellm4rec.cli.main import app as recommender
from spectral_probe.analysis.cost import IN_WORDS, plan_analysis
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.backbones.packaged import SMOLLM2
from spectral_probe.cli.main import app as instrument
from spectral_probe.errors import DataError

ROOT = Path(__file__).resolve().parents[1]


def test_the_plug_in_of_the_guide_runs_and_is_about_forty_lines(capsys) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 45
    exec(compile(code, "plugins.md", "exec"), {"__name__": "guide"})
    assert capsys.readouterr().out.strip()


def test_every_function_and_test_of_the_paper_map_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = re.findall(r"`((?:spectral_probe|frellm4rec)\.[\w.]+)` \| `(test_\w+)`", _read("docs/paper_map.md"))
    assert len(rows) >= 15
    for name, test in rows:
        assert f"def {test}(" in sources, test
        assert _exists(name), name


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _exists(dotted: str) -> bool:
    """Tell whether a dotted name leads to something: the longest importable module, then attributes."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False


#: Commands of the README that need the network, and the exit codes that say so without it.
NETWORK = "# network"


def _commands(block: str) -> list[tuple[str, bool]]:
    """Return the commands of a shell block, and whether each needs the network."""
    lines = [line for line in block.splitlines() if line.strip()]
    return [(line.partition("#")[0].strip(), NETWORK in line) for line in lines]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """One cache for all documents: SASRec is trained on the built-in data once."""
    return tmp_path_factory.mktemp("cache")


def test_every_command_of_the_readme_runs(cache, tmp_path_factory) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", _read("README.md"), re.S)
    commands = [command for block in blocks for command in _commands(block)]
    assert len(commands) >= 8
    folder = tmp_path_factory.mktemp("readme")
    bin_folder = Path(sys.executable).parent
    # An empty package hides SmolLM2, which takes minutes, so MiniLM takes its place. A slow test runs SmolLM2.
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / SMOLLM2.module).mkdir()
    (hidden / SMOLLM2.module / "__init__.py").touch()
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(hidden),
        "SPECTRAL_PROBE_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }
    for variable in ("http_proxy", "https_proxy"):
        environment[variable] = "http://127.0.0.1:9"  # nobody answers there: every download fails at once
    printed: dict[str, str] = {}
    for command, needs_network in commands:
        # `make` would install; that it knows the target and what it would do is enough here.
        run = command.replace("make ", f"make -n -C {ROOT} ", 1) if command.startswith("make ") else command
        # Through a shell, as a reader runs it: some commands name a run by a pattern.
        done = subprocess.run(
            ["bash", "-c", run], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in ((3, 4) if needs_network else (0,)), f"{command}: {done.stderr[-600:]}"
        assert "Traceback" not in done.stderr, command
        printed[command] = done.stdout
    assert len(list(folder.glob("*/**/report.html"))) >= 5
    (compared,) = [text for command, text in printed.items() if command.startswith("spectral-probe compare probes/")]
    quoted = re.search(r"<!-- paired:begin -->\n(.*?)<!-- paired:end -->", _read("README.md"), re.S).group(1)
    assert_says(" ".join(compared.split()), " ".join(quoted.replace("> ", "").split()))


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/data.md"])
def test_every_command_of_a_page_exists_with_its_options(page) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", _read(page), re.S)
    programs = {"spectral-probe": get_command(instrument), "frellm4rec": get_command(recommender)}
    checked = 0
    for command, _ in (pair for block in blocks for pair in _commands(block)):
        program, *words = shlex.split(command)
        if program in programs:
            name, *arguments = words
            known = programs[program].commands[name].params
            options = {text for parameter in known for text in (*parameter.opts, *parameter.secondary_opts)}
            assert {word.partition("=")[0] for word in arguments if word.startswith("-")} <= options, command
            checked += 1
    assert checked >= 3


def test_the_tutorial_names_files_that_a_run_holds() -> None:
    table = _read("docs/architecture.md").partition("## What a run holds")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([^`]+)` \|", _read("docs/tutorial.md"), re.M)
    assert len(named) >= 5
    for name in named:
        folder, _, file = name.rpartition("/")
        assert f"`{folder}/`" in table and f"`{Path(file).stem}`" in table if folder else f"`{file}`" in table, name


#: A number with its sign.
NUMBER = r"[+-]?\d+(?:\.\d+)?"


def assert_says(text: str, quoted: str) -> None:
    """Assert that a text has the quoted words, with nearly the same numbers.

    Trained weights depend on the processor and the threads in the last digits, and with them what is measured.
    """
    pattern = re.escape(re.sub(NUMBER, "#", quoted)).replace(re.escape("#"), f"({NUMBER})")
    match = re.search(pattern, text)
    assert match is not None, f"not printed: {quoted}"
    expected = re.findall(NUMBER, quoted)
    assert len(expected) >= 6
    for value, other in zip(match.groups(), expected, strict=True):
        assert abs(float(value) - float(other)) <= 0.1 + 0.1 * abs(float(other)), match.group(0)


def test_a_quotation_with_another_sign_or_word_is_not_printed() -> None:
    quoted = "keeps less: 0.49 against 0.93, difference -0.45 [-0.47, -0.43]. Of popularity: 0.10"
    assert_says(f"before {quoted} after", quoted)
    assert_says(quoted.replace("0.49", "0.50"), quoted)
    for other in (quoted.replace("less", "more"), quoted.replace("-0.45", "+0.45"), quoted.replace("0.93", "1.93")):
        with pytest.raises(AssertionError):
            assert_says(other, quoted)


def test_the_python_of_the_readme_runs(cache, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(cache))
    three, four = re.findall(r"```python\n(.*?)```", _read("README.md"), re.S)
    module = Encoder(400)  # that of the second block is the reader's own
    for code in (three, four):
        assert len([line for line in code.splitlines() if line.strip()]) == 3
        exec(compile(code, "README.md", "exec"), {"__name__": "readme", "module": module})
        assert capsys.readouterr().out.strip()


class Encoder(nn.Module):
    """A module as a reader has it: an item table and causal blocks of torch."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.item = nn.Embedding(n_items, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(items.shape[1])
        return self.encoder(self.item(items), mask=mask, is_causal=True)


def plan_rows() -> str:
    """Return the plan that the README shows, as its table."""
    options = AnalysisOptions(dtype="bfloat16")
    names = ("n_parameters", "weight_bytes", "peak_device_bytes", "peak_host_bytes", "gram_bytes", "forward_flops")
    text = {row["quantity"]: row["text"] for row in plan_analysis("qwen2.5-7b", "demo", options)}
    return "\n".join(["| what | expected |", "|---|---|", *(f"| {IN_WORDS[key]} | {text[key]} |" for key in names)])


def test_the_plan_of_the_readme_is_the_plan() -> None:
    shown = re.search(r"<!-- plan:begin -->\n(.*?)\n<!-- plan:end -->", _read("README.md"), re.S)
    assert shown is not None
    assert shown.group(1) == plan_rows()


def test_what_the_readme_says_of_results_follows_from_the_committed_tables() -> None:
    text = _read("README.md")
    assert readme.readme(text) == text
    with pytest.raises(DataError, match="findings:begin"):
        readme.readme(text.replace("<!-- findings:begin -->", ""))


def test_what_the_readme_says_of_the_cost_is_what_was_measured() -> None:
    cost = re.search(
        r"at\nmost (\d+) % from width (\d+) on .*?took ([\d.]+) times.*?and (\d+) times", _read("README.md"), re.S
    )
    most, width, ratio, treated = map(float, cost.groups())
    by_width = re.search(r"forward \+ plain and treated Grams.*", _read("docs/benchmarks.md")).group(0)
    ratios = {float(w): float(value) for w, value in re.findall(r"(\d+): ([\d.]+)×", by_width)}
    assert max(value for w, value in ratios.items() if w >= width) <= 1 + most / 100 + 0.005
    capture = re.search(r"capture of LastFM / bare forward passes.*", _read("docs/benchmarks_gpu.md")).group(0)
    bare, treated_seconds = re.search(r"s / ([\d.]+) s.*treated Grams ([\d.]+) s", capture).groups()
    assert float(re.search(r"([\d.]+)×", capture).group(1)) == pytest.approx(ratio, abs=0.05)
    assert float(treated_seconds) / float(bare) == pytest.approx(treated, abs=0.5)


def test_every_relative_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_notebook_stores_what_a_real_model_gave(path) -> None:
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    sources = "\n".join("".join(cell["source"]) for cell in cells)
    assert re.search(r"minilm|smollm2", sources)
    assert "tiny-random" not in sources
    assert any(
        "image/png" in o.get("data", {}) or "<img" in "".join(o.get("data", {}).get("text/html", "")) for o in outputs
    )
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert len(text) < 1_500_000
    assert not re.search(r"/(tmp|home|root|work)/", text)


@pytest.mark.parametrize("number", ["02", "03"])
def test_both_notebooks_on_training_end_in_a_paired_change_with_its_interval(number) -> None:
    (path,) = [path for path in NOTEBOOKS if path.name.startswith(number)]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    *_, last = [output for cell in cells for output in cell.get("outputs", [])]
    table = "".join(last["data"]["text/html"])
    for quantity in ("taste", "popularity", "retention_taste", "retention_popularity"):
        assert f"<td>{quantity}</td>" in table or f"<th>{quantity}</th>" in table
    for column in ("base", "other", "difference", "difference_low", "difference_high"):
        assert f"<th>{column}</th>" in table
