"""RecBole's side of ``training-recbole``, run by the interpreter that has RecBole: ``recbole_side.py SPEC``.

SPEC is a JSON file with ``model``, ``settings`` (RecBole's own names) and ``threads``. One line says when the model is
ready; then each line ``[number of steps, whether RecBole's search for NaN stays on]`` on stdin is answered by a line
with their processor seconds and samples.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def without_tensorboard() -> None:
    """Put an empty writer where RecBole imports TensorBoard, if it is not installed: no step uses it."""
    if importlib.util.find_spec("tensorboard") is None:
        module = types.ModuleType("torch.utils.tensorboard")
        module.SummaryWriter = _Nothing  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module


class _Nothing:
    """Takes every call, does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


def build(model_name: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return RecBole's trainer with an untrained model, and its loader of training batches."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    sys.argv = sys.argv[:1]  # RecBole reads settings from the command line too
    config = Config(model=model_name, dataset="log", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    loader, _, _ = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, loader._dataset).to(config["device"])
    return get_trainer(config["MODEL_TYPE"], config["model"])(config, model), loader


class Batches:
    """Batches of epoch after epoch, a given number at a time, and how many samples they had."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.n_samples = loader, 0
        self.endless = self._endless()

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def take(self, n: int) -> Iterator[Any]:
        """Yield the next n batches."""
        for _ in range(n):
            batch = next(self.endless)
            self.n_samples += len(batch)
            yield batch


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever RecBole prints goes to stderr
    without_tensorboard()
    import torch

    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    trainer, loader = build(spec["model"], spec["settings"])
    as_it_comes = torch.is_anomaly_enabled()
    batches = Batches(loader)
    ready = {"samples": loader.sample_size, "parameters": sum(p.numel() for p in trainer.model.parameters())}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        n_steps, is_checked = json.loads(line)
        # RecBole turns on autograd's search for NaN, which its training does not need.
        torch.autograd.set_detect_anomaly(as_it_comes and is_checked)
        before, began = batches.n_samples, time.process_time()
        trainer._train_epoch(batches.take(n_steps), 0)
        answer = {"seconds": time.process_time() - began, "samples": batches.n_samples - before}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
