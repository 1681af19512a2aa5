"""Every script under paper_figures runs, at reduced size, so that none rots."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent / "paper_figures").glob("*.py"))
NEED_MNIST = {
    "table_denoisers.py",
    "table_prior.py",
    "table_methods.py",
    "figure_time_to_error.py",
    "table_design.py",
    "figure_design.py",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(script, tmp_path, request):
    if script.name in NEED_MNIST:
        request.getfixturevalue("digits")  # skips where MNIST is not at hand
    environment = dict(os.environ)
    if "NPGD_DATA" in environment:  # the script runs in another folder
        environment["NPGD_DATA"] = str(Path(environment["NPGD_DATA"]).resolve())
    done = subprocess.run(
        [sys.executable, str(script), "--quick"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
