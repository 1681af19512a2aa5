"""Everything the convergence theorem talks about, measured, held against a run, and shown.

`verification` measures; `report` says it in words; `figures` and `page` show it.
"""

from analysis.report.report import Finding, Report
from analysis.report.verification import verify

__all__ = ["Finding", "Report", "verify"]
