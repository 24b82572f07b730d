"""Numbers, names and options out of range: refused with 2, by the plan as by the run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.hostile.harness import Call
from tests.hostile.world import World

#: What is typed where a number is asked for.
NOT_A_COUNT = ("-1", "0", "1.5", "nan", "", " ", "ten", "1e400", "9" * 30, "0x10", "１２")
ANALYZE_COUNTS = ("--max-length", "--users", "--batch-size", "--n-pseudo", "--min-targets")
TRAIN_SETTINGS = (
    *("training.batch_size", "training.n_epochs", "training.learning_rate", "training.patience"),
    *("architecture.n_features", "architecture.n_heads", "architecture.n_blocks", "architecture.dropout"),
)
#: Values that are in range for some setting.
IN_RANGE = (
    ("--users", "9" * 30),  # all users
    ("architecture.dropout", "0"),
    ("training.learning_rate", "9" * 30),
)
#: Whole numbers in another notation, or rates: right for one setting, wrong for another.
PERHAPS = ("1.5", "0x10", "１２")


def _analyze(world: World, *more: str) -> list[str]:
    data = ["--dataset", str(world.data), "--embeddings", str(world.npy), "--n-pseudo", "5"]
    return ["spectral-probe", "analyze", "--model", str(world.decoder), *data, *more]


def _option(option: str, value: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    arguments = _analyze(world, f"{option}={value}", "--dry-run")
    return Call(arguments, (0, 2) if value == "１２" else (0,) if (option, value) in IN_RANGE else (2,))


def _setting(name: str, value: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    recipe = ["--model", "sasrec", "--dataset", str(world.data), "--set", f"{name}={value}", "--dry-run"]
    codes = (0, 2) if value in PERHAPS else (0,) if (name, value) in IN_RANGE else (2,)
    return Call(["frellm4rec", "train", *recipe], codes)


def _refused(
    arguments: list[str], codes: tuple[int, ...], world: World, folder: Path, rng: np.random.Generator
) -> Call:
    """Return a call whose arguments are refused; ``{name}`` stands for a path of the world."""
    paths = {name: str(getattr(world, name)) for name in ("data", "npy", "decoder", "analysis", "training")}
    return Call([argument.format(**paths) for argument in arguments], codes)


_PROBE = ["spectral-probe", "analyze", "--model", "{decoder}", "--dataset", "{data}", "--embeddings", "{npy}"]
_PLAN = [*_PROBE, "--dry-run"]
_TRAIN = ["frellm4rec", "train", "--model", "sasrec", "--dataset", "{data}", "--dry-run"]
REFUSED: dict[str, tuple[list[str], tuple[int, ...]]] = {
    "no such layer": ([*_PLAN, "--layers", "block 99"], (2,)),
    "a seed of 30 digits": ([*_PLAN, "--seed", "9" * 30], (2,)),
    "a negative seed": ([*_PLAN, "--seed", "-1"], (2,)),
    "tau 0": ([*_PLAN, "--tau", "0"], (2,)),
    "tau nan": ([*_PLAN, "--tau", "nan"], (2,)),
    "tau inf": ([*_PLAN, "--tau", "inf"], (2,)),
    "an unknown null": ([*_PLAN, "--null", "swop"], (2,)),
    "an unknown control": ([*_PLAN, "--controls", "random_weights"], (2,)),
    "an unknown component": ([*_PLAN, "--component", "tast"], (2,)),
    "an unknown preset": ([*_PLAN, "--preset", "papr"], (2,)),
    "unknown nodes": ([*_PLAN, "--nodes", "read"], (2,)),
    "unknown weights": ([*_PLAN, "--weights", "heavy"], (2,)),
    "unknown bands": ([*_PLAN, "--bands", "rank:x"], (2,)),
    "no bands": ([*_PLAN, "--bands", "0"], (2,)),
    "an unknown sequence": ([*_PLAN, "--sequence", "all"], (2,)),
    "an unknown dtype": ([*_PLAN, "--dtype", "float8"], (2,)),
    "an unknown device": ([*_PLAN, "--device", "gpu"], (2,)),
    "a device that is not there": ([*_PLAN, "--device", "cuda:99"], (2, 6)),
    "an unknown quantization": ([*_PLAN, "--quantize", "3bit"], (2,)),
    "inputs beside vectors": ([*_PLAN, "--inputs", "text"], (2,)),
    "a revision of a folder": ([*_PLAN, "--revision", "main"], (2,)),
    "an unknown model": (["spectral-probe", "analyze", "--model", "qwen2.5-7c", "--dry-run"], (2, 4)),
    "a model without a name": (["spectral-probe", "analyze", "--model", "", "--dry-run"], (2, 4)),
    "an unknown data set": (["spectral-probe", "analyze", "--dataset", "lastfmm", "--dry-run"], (2, 3)),
    "vectors that are not there": (
        ["spectral-probe", "analyze", "--model", "{decoder}", "--dataset", "{data}", "--embeddings", "/no.npy"],
        (2, 3),
    ),
    "a trained model with vectors": (
        ["spectral-probe", "analyze", "--model", "sasrec", "--dataset", "{data}", "--embeddings", "{npy}", "--dry-run"],
        (2,),
    ),
    "a trained model in half precision": (
        ["spectral-probe", "analyze", "--model", "sasrec", "--dataset", "{data}", "--dtype", "float16", "--dry-run"],
        (2,),
    ),
    "a trained model with an adapter": (
        ["spectral-probe", "analyze", "--model", "sasrec", "--dataset", "{data}", "--adapter", "/nope", "--dry-run"],
        (2,),
    ),
    "a run with a model": (["spectral-probe", "analyze", "{analysis}", "--model", "sasrec"], (2,)),
    "a training as a run": (["spectral-probe", "analyze", "{training}"], (2, 3)),
    "an output of 300 letters": ([*_PROBE, "--out", "o" * 300], (2, 6)),
    "an output that is a file": ([*_PROBE, "--out", "{data}"], (2, 6)),
    "an output below a file": ([*_PROBE, "--out", "{data}/runs"], (2, 6)),
    "compare one": (["spectral-probe", "compare", "{analysis}"], (2,)),
    "compare a training": (["spectral-probe", "compare", "{analysis}", "{training}"], (2, 3)),
    "report nothing": (["spectral-probe", "report", "/no/such/run"], (2, 3)),
    "an unknown command": (["spectral-probe", "analyse"], (2,)),
    "an unknown option": (["spectral-probe", "analyze", "--modle", "x"], (2,)),
    "an unknown recommender": (["frellm4rec", "train", "--model", "sasrek", "--dry-run"], (2,)),
    "an unknown setting": ([*_TRAIN, "--set", "training.lr=1"], (2,)),
    "a setting without a value": ([*_TRAIN, "--set", "training.batch_size"], (2,)),
    "a setting that is code": ([*_TRAIN, "--set", "training.batch_size=!!python/object/apply:os.system [ls]"], (2,)),
    "a bool as number": ([*_TRAIN, "--set", "training.batch_size=true"], (2,)),
    "a list as number": ([*_TRAIN, "--set", "training.batch_size=[1, 2]"], (2,)),
    "too many negatives": (["frellm4rec", "evaluate", "{training}", "--ranking", "99999999+1"], (2, 3)),
    "half a ranking": (["frellm4rec", "evaluate", "{training}", "--ranking", "99"], (2,)),
    "k 0": (["frellm4rec", "evaluate", "{training}", "--k", "0", "--ranking", "full"], (2,)),
    "a k of 30 digits": (["frellm4rec", "evaluate", "{training}", "--k", "9" * 30, "--ranking", "full"], (2,)),
    "an unknown user": (["frellm4rec", "recommend", "{training}", "--user", "u999"], (2, 3)),
    "an empty user": (["frellm4rec", "recommend", "{training}", "--user", ""], (2, 3)),
    "an empty history": (["frellm4rec", "recommend", "{training}", "--history", ""], (2, 3)),
    "an unknown item": (["frellm4rec", "recommend", "{training}", "--history", "nothing"], (2, 3)),
    "an open quote": (["frellm4rec", "recommend", "{training}", "--history", '"i12'], (2, 3)),
    "k -1": (["frellm4rec", "recommend", "{training}", "--user", "u1", "--k", "-1"], (2,)),
    "an unknown suffix": (["frellm4rec", "export", "{training}", "--out", "v.xlsx"], (2,)),
    "an export into a folder that is a file": (["frellm4rec", "export", "{training}", "--out", "{data}/v.npy"], (2, 6)),
    "an unknown core": (["frellm4rec", "data", "{data}", "--core", "6"], (2,)),
    "an unknown export": (["frellm4rec", "data", "{data}", "--export", "csv", "x"], (2,)),
    "no trials": (["frellm4rec", "tune", "sasrec", "--dataset", "{data}", "--trials", "0"], (2,)),
    "no seconds": (["frellm4rec", "tune", "sasrec", "--dataset", "{data}", "--seconds", "-3"], (2,)),
    "an unknown experiment": (["frellm4rec", "experiment", "table9"], (2,)),
}


def _recipe(content: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    (folder / "recipe.yaml").write_text(content.format(data=world.data))
    return Call(["frellm4rec", "train", str(folder / "recipe.yaml"), "--dry-run"], (2,))


RECIPES = {
    "a key twice": "model: sasrec\ndataset: {data}\nseed: 1\nseed: 2\n",
    "an inner key twice": "model: sasrec\ndataset: {data}\ntraining:\n  n_epochs: 1\n  n_epochs: 2\n",
    "an unknown key": "model: sasrec\ndataset: {data}\nepochs: 3\n",
    "a list": "- model\n- sasrec\n",
    "no YAML": "model: [sasrec\n",
    "a tab": "model:\tsasrec\n\tdataset: x\n",
    "an object": "model: !!python/object/apply:os.system ['true']\n",
    "a training that is a text": "model: sasrec\ndataset: {data}\ntraining: fast\n",
    "a billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmodel: *c\n",
    "a number as model": "model: 3\ndataset: {data}\n",
}


def _environment(
    variables: dict[str, str], codes: tuple[int, ...], world: World, folder: Path, rng: np.random.Generator
) -> Call:
    return Call(["frellm4rec", "recommend", str(world.training), "--user", "u1"], codes, environment=variables)


ENVIRONMENTS: dict[str, tuple[dict[str, str], tuple[int, ...]]] = {
    "OMP_NUM_THREADS=2,1": ({"OMP_NUM_THREADS": "2,1"}, (0,)),
    "WORLD_SIZE=abc": ({"WORLD_SIZE": "abc"}, (0, 2)),
    "COLUMNS=abc": ({"COLUMNS": "abc"}, (0,)),
    "COLUMNS=1": ({"COLUMNS": "1"}, (0,)),
    "TERM=dumb": ({"TERM": "dumb"}, (0,)),
    "NO_COLOR": ({"NO_COLOR": "1"}, (0,)),
}


def _cases() -> dict[str, Callable[[World, Path, np.random.Generator], Call]]:
    return {
        **{f"{o}={v!r}": partial(_option, o, v) for o in ANALYZE_COUNTS for v in NOT_A_COUNT},
        **{f"{s}={v!r}": partial(_setting, s, v) for s in TRAIN_SETTINGS for v in NOT_A_COUNT},
        **{name: partial(_refused, arguments, codes) for name, (arguments, codes) in REFUSED.items()},
        **{f"recipe: {name}": partial(_recipe, content) for name, content in RECIPES.items()},
        **{f"environment: {name}": partial(_environment, *values) for name, values in ENVIRONMENTS.items()},
    }


CASES = _cases()
