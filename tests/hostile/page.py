"""``docs/reliability.md``: what is promised, what was tried, what is not promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.hostile.harness import Ending
from tests.hostile.kills import N_SLOW
from tests.hostile.processes import DISKS, LINES, SIGNALS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_PROMISES = """# Reliability

<!-- This page is written by `make hostile`. -->

## What is promised

- **A wrong input ends with one message**: what failed, the value that was seen, the next step. No traceback.
- **The exit code names the cause**: 2 an option or a setting, 3 the data or a damaged run, 4 the model, 5
  a missing package, 6 memory or disk, 129, 130 and 143 a signal. A reader of the output that goes away, as in
  `| head`, is no error.
- **What is doubtful is refused, not guessed**: weights that no module takes, vectors whose items are not known,
  labels that are missing, an unclosed quote that would join rows. What is merged or left out is counted in a note.
- **What is finished stays.** Every file is written whole or not at all. A run that was killed goes on with
  `--resume` and ends with the same results to the byte; only times, memory and the names of folders differ.
- **One process works in a run folder at a time.** A second one is refused, and told which one is there.
- **Text from outside is shown, not obeyed**: control characters in titles, ids, names and paths are printed in
  their written form. CSV files hold ids and titles as they are, so that they can be read back: a spreadsheet
  may take a title that begins with `=` for a formula. Open such files with the import of the spreadsheet, as
  text.
"""
_NOT = """## What is not promised

- **Power loss.** Files are renamed into their final name after they are written; whether the disk had them by
  then is up to the system.
- **The GPU.** Nothing here was tried with an error of a GPU. A GPU does not add in the same order each time.
- **Numbers changed by hand.** A digit in a table of your own data is your data. In our own files most changes
  are found, a changed number in `summary.json` is not.
- **Code in model repositories.** It runs only with `--trust-remote-code`, and can then do anything.
"""


def page(totals: Mapping[str, Counter[Ending]]) -> str:
    """Return the page for these totals by category."""
    sums = Counter[Ending]()
    for endings in totals.values():
        sums.update(endings)
    n_processes = len(LINES) + len(SIGNALS) + len(DISKS)
    kills = ", ".join(f"{n} of `{name}`" for name, n in N_SLOW.items())
    rows = [
        f"| {name} | {' | '.join(str(endings[ending]) for ending in Ending)} |"
        for name, endings in (*totals.items(), ("all", sums))
    ]
    table = "\n".join([f"| input | {' | '.join(Ending)} |", f"|---|{'---:|' * len(Ending)}", *rows])
    tried = f"""## What was tried

`make hostile` runs all of it again and writes this page. {sum(sums.values()):,} seeded cases go through the
real `main()`:

{table}

*Work lost* is a file that was there before and is changed or gone. An accepted input counts only if the result
is the right one, where it is known: the counts of a log in another form, the curves of vectors and runs in
another form.

Beside them, {n_processes} processes with closed streams, signals, limits, strange environments and full disks;
and {sum(N_SLOW.values())} kills at random moments ({kills}), each followed by the same command with `--resume`.
The target fails if one of them ends wrongly.
"""
    return "\n".join([_PROMISES, tried, _NOT])
