"""A limit for commands that tells a hang from slowness."""

from __future__ import annotations

import os
import sys

import pytest

from tests.jobs.running import run_unless_hung

COMPUTES = "import time; end = time.process_time() + 1.0\nwhile time.process_time() < end: pass\nprint('done')"
IN_A_CHILD = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {COMPUTES!r}]).returncode)"
HANGS = "import sys, time; print('begun', flush=True); time.sleep(10**6)"


@pytest.mark.parametrize("code", [COMPUTES, IN_A_CHILD], ids=["itself", "a child"])
def test_what_computes_is_waited_for(code):
    done = run_unless_hung([sys.executable, "-c", code], dict(os.environ), silent=2.0)
    assert done.returncode == 0
    assert "done" in done.stdout


def test_what_does_nothing_is_killed():
    with pytest.raises(AssertionError, match="has done nothing for 3 s: begun"):
        run_unless_hung([sys.executable, "-c", HANGS], dict(os.environ), silent=3.0)
