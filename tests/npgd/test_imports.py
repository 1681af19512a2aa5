"""What `import npgd` loads, in an interpreter of its own."""

import subprocess
import sys


def loaded(code):
    """The modules that `code` loads beyond those of torch."""
    script = (
        f"import sys, torch; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_npgd_loads_neither_its_training_nor_what_only_the_analysis_needs():
    names = loaded("import npgd")
    assert "npgd.priors" in names
    heavy = {"analysis", "cvxpy", "matplotlib", "rich", "sympy"}
    assert not [n for n in names if n.startswith("npgd.training") or n.split(".")[0] in heavy]


def test_loading_every_kind_of_shipped_weights_loads_no_training_either():
    names = loaded("import npgd; npgd.load_prior(); npgd.load_denoiser(); npgd.load_onenet()")
    assert "npgd.cards" in names
    assert not [name for name in names if name.startswith("npgd.training")]
