"""Python processes that permissions hold for, also where the tests run as root."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OVERRIDES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root write and read where permissions say no."""

# Another user might not even read the interpreter, which can lie in root's home. Root itself, without these two
# capabilities, is the owner of its files and nothing more; they are gone for good with the next program it becomes.
_DROP = f"""
import ctypes, os, sys
for capability in {OVERRIDES}:
    if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def python() -> list[str]:
    """How to call Python so that a folder without permission to write takes no files from it."""
    if os.geteuid() != 0:
        return [sys.executable]
    if not sys.platform.startswith("linux"):
        pytest.skip("root may write everywhere, and only Linux takes that from it")
    dropped = [sys.executable, "-c", _DROP]
    if (done := subprocess.run([*dropped, "-c", ""], capture_output=True, text=True)).returncode:
        pytest.skip(f"root may write everywhere here: {done.stderr.strip()}")
    return dropped
