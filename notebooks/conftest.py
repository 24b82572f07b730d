"""The notebooks run with few users and one epoch in the tests; their stored outputs come from the full run."""

from __future__ import annotations

import os

os.environ.setdefault("NOTEBOOK_USERS", "30")
os.environ.setdefault("NOTEBOOK_EPOCHS", "1")
