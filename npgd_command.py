"""The command `npgd` as it is installed: `analysis.commands`, if that is ours.

`analysis` and `paper_figures` are names that people give to folders and scripts of their own. Where
Python finds one of those first, this module says so in one sentence, in place of the error that
would follow. It stands beside the packages, because `npgd` never imports `analysis`, and because it
must cost nothing to import.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


class Shadowed(ImportError):
    """Another package, or a script, has the name of one of ours."""


def ours(name: str) -> None:
    """Raise Shadowed where `import name` finds something else than the package beside this file.

    Nothing is imported.
    """
    here = Path(__file__).parent / name / "__init__.py"
    spec = importlib.util.find_spec(name)
    found = spec.origin if spec is not None else None
    if found and Path(found).exists() and here.exists() and not here.samefile(found):
        raise Shadowed(
            f"{name} must be the package that comes with npgd, got {found}: rename that, or work "
            "where Python does not find it first (in another folder, with another PYTHONPATH)"
        )


def main() -> None:
    """The command `npgd`; exit status 2 where `analysis` is not ours."""
    try:
        ours("analysis")
    except Shadowed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    from analysis.commands import main as command

    command()
