"""Everything the convergence theorem talks about, measured, held against a run, and shown.

`settings` says how it is run; `verification` measures; `evidence` is what was measured; `findings`
says it in words; `figures` and `page` show it; `report` is all of it together.
"""

from analysis.report.findings import Finding
from analysis.report.report import Report
from analysis.report.settings import RunSettings
from analysis.report.verification import verify

__all__ = ["Finding", "Report", "RunSettings", "verify"]
