"""Tasks in processes of their own: what a signal to the process that started them leaves."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frellm4rec.tuning.processes import attempt, exit_code_of, is_for_good, side_by_side

SCRIPT = """
import sys, time
from pathlib import Path
from frellm4rec.tuning.processes import side_by_side
from spectral_probe.progress import progress_bar
from spectral_probe.runs import interruptions

def task(folder, name):
    path = Path(folder) / name
    try:
        progress_bar(total=1, shown=True)
        path.write_text("begun")
        time.sleep(60)
    except KeyboardInterrupt:
        path.write_text("interrupted")
        raise

if __name__ == "__main__":
    interruptions.end_like_ctrl_c()
    tasks = {name: (sys.argv[1], name) for name in "abc"}
    try:
        list(side_by_side(task, tasks, 2))
    except KeyboardInterrupt:
        sys.exit(128 + (interruptions.received or 2))
"""


def begun(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_tasks_and_begins_no_other(number, tmp_path):
    script, folder = tmp_path / "tasks.py", tmp_path / "begun"
    script.write_text(SCRIPT)
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(folder)], start_new_session=True, stderr=-1, text=True)
    deadline = time.monotonic() + 60
    while sorted(begun(folder).values()) != ["begun", "begun"] and time.monotonic() < deadline:
        time.sleep(0.02)
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 15
    assert process.returncode == 128 + number
    assert begun(folder) == {"a": "interrupted", "b": "interrupted"}
    assert "Traceback" not in err
    assert "leaked" not in err  # semaphores of the bars


def test_a_consumer_that_stops_early_ends_the_tasks(tmp_path):
    tasks = {"short": (0.0,), "long": (60.0,)}
    results = side_by_side(time.sleep, tasks, 2)
    assert next(results)[:2] == ("short", "")
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 15


def test_what_an_error_of_another_process_means():
    assert (exit_code_of("SmallCatalogueError: x"), is_for_good("SmallCatalogueError: x")) == (3, True)
    assert (exit_code_of("NonFiniteStateError: x"), is_for_good("NonFiniteStateError: x")) == (4, True)
    assert (exit_code_of("ResourceError: x"), is_for_good("ResourceError: x")) == (6, False)
    assert (exit_code_of("KeyError: x"), is_for_good("KeyError: x")) == (1, False)
    assert (exit_code_of(""), is_for_good("")) == (1, False)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        OSError(28, "No space left on device"),
        PermissionError(13, "Permission denied", "weights"),
    ],
)
def test_a_task_without_memory_or_disk_ends_with_6(error):
    def task():
        raise error

    line, _ = attempt(task)
    assert (line.startswith("ResourceError: "), exit_code_of(line), is_for_good(line)) == (True, 6, False)
