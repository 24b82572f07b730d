"""A signal to end is raised once; the second one ends the process at once."""

import signal
import subprocess
import sys

SCRIPT = """
import os, signal
from spectral_probe.runs import interruptions

signal.signal(signal.SIGHUP, signal.SIG_IGN)
interruptions.received = signal.SIGHUP
interruptions.end_like_ctrl_c()
assert interruptions.received == 0
os.kill(os.getpid(), signal.SIGHUP)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt as error:
    print(interruptions.words_of(error), interruptions.received, flush=True)
print(interruptions.words_of(KeyboardInterrupt()), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""


def test_a_second_signal_ends_the_process_and_an_ignored_one_stays_ignored():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    words = "interrupted by SIGTERM 15\ninterrupted by Ctrl-C (SIGINT)\n"
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, words), done.stderr
