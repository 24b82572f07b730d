"""Lines of bash with closed streams, strange starts and limits, signals, and commands that fill a disk."""

from __future__ import annotations

import sys

SPECTRAL = f"{sys.executable} -m spectral_probe.cli.main"
FRELLM = f"{sys.executable} -m frellm4rec.cli.main"
RECOMMEND = FRELLM + " recommend {training} --user u1"
#: Lines of bash, and the exit codes that are right; the first few of each kind are in the default run.
LINES: dict[str, tuple[str, tuple[int, ...]]] = {
    # streams
    "standard output is closed": (RECOMMEND + " >&-", (0, 6)),
    "standard error is closed": (RECOMMEND + " 2>&-", (0,)),
    "an error with standard error closed": (SPECTRAL + " report /no/such 2>&-", (2, 3)),
    "all streams are closed": (RECOMMEND + " <&- >&- 2>&-", (0, 6)),
    "standard input is closed": (RECOMMEND + " <&-", (0,)),
    "the reader goes away": (RECOMMEND + " | head -1; exit ${{PIPESTATUS[0]}}", (0,)),
    "the reader of a list goes away": (SPECTRAL + " models | head -1; exit ${{PIPESTATUS[0]}}", (0,)),
    "standard output is a full disk": (RECOMMEND + " >/dev/full", (6,)),
    "standard error is a full disk": (SPECTRAL + " report /no/such 2>/dev/full", (2, 3)),
    "a table into a full disk": (SPECTRAL + " datasets >/dev/full", (6,)),
    # start-up
    "the version": (SPECTRAL + " --version", (0,)),
    "no command": (FRELLM, (0, 2)),
    "the help of every command": (
        "for c in data models train tune evaluate recommend export compare experiment rayleigh; do "
        + FRELLM
        + " $c --help >/dev/null || exit 9; done",
        (0,),
    ),
    "no home": ("env -u HOME -u SPECTRAL_PROBE_CACHE " + RECOMMEND, (0,)),
    "a home that is not there": ("HOME=/no/such/home SPECTRAL_PROBE_CACHE= " + RECOMMEND, (0,)),
    "an empty cache variable": ("SPECTRAL_PROBE_CACHE= " + SPECTRAL + " datasets", (0,)),
    "a cache that cannot be made": ("SPECTRAL_PROBE_CACHE=/proc/none " + RECOMMEND, (0,)),
    "no folder for temporary files": ("TMPDIR=/no/such " + RECOMMEND, (0,)),
    "no environment": ("env -i " + RECOMMEND, (0,)),
    "the C locale": ("LC_ALL=C LANG=C PYTHONUTF8=0 " + RECOMMEND, (0,)),
    "ASCII streams": ("PYTHONIOENCODING=ascii " + SPECTRAL + " models", (0,)),
    "a folder that is gone": ("mkdir gone && cd gone && rmdir ../gone && " + RECOMMEND, (0, 6)),
    "a dumb terminal": ("TERM=dumb COLUMNS=20 " + RECOMMEND, (0,)),
    "no terminal type": ("env -u TERM " + RECOMMEND, (0,)),
    "optimised Python": ("PYTHONOPTIMIZE=2 " + RECOMMEND, (0,)),
    "threads as OpenMP allows": ("OMP_NUM_THREADS=2,1 " + RECOMMEND, (0,)),
    "a wrong number of threads": ("OMP_NUM_THREADS=many " + RECOMMEND, (0, 2)),
    "a wrong world size": ("WORLD_SIZE=abc " + FRELLM + " train --model sasrec --dataset {data} --epochs 1", (0, 2)),
    "a strict umask": ("umask 777; " + FRELLM + " export {training} --out v.csv", (0, 6)),
    "a link as a run": ("ln -s {training} link && " + FRELLM + " recommend link --user u1", (0,)),
    # limits
    "few open files": ("ulimit -n 24; " + RECOMMEND, (0, 6)),
    "small files": ("ulimit -f 1; " + FRELLM + " export {training} --out v.csv", (0, 6)),
    "no files": ("ulimit -f 0; " + FRELLM + " export {training} --out v.csv", (6,)),
    "little memory": ("ulimit -d 700000; " + RECOMMEND, (0, 6)),
    "no core files": ("ulimit -c 0; " + RECOMMEND, (0,)),
}
DEFAULT = ("the reader goes away", "standard output is a full disk", "all streams are closed", "no home")
#: Signals in the middle of a training, and the exit code of each.
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
#: Commands that write to a file system that fills up.
DISKS = ("train", "analyze", "export")
