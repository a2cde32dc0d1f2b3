"""The discriminator that `run.py` has trained, as the check of `job.toml`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from examples.adversarial_checks.discriminator import FILE, Discriminator  # noqa: E402

# Read when the job is, so that a missing file is told before any work.
looks_real = Discriminator.load(FILE).check()
