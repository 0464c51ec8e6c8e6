"""Compatibility: whether those who know the old contract can go on beside those who know the new one.

    findings = compare(document_of([OldMovies]), document_of([Movies]))
    assert not any(finding.verdict is Verdict.BREAKING for finding in findings)

A document is plain JSON, to be kept in the repository; `sbrpc contract export` writes it and `sbrpc contract
diff` compares it with what the code says now.
"""

from ._compare import Finding, compare
from ._document import FORMAT, check_document, document_of
from ._rules import RULES, Rule, Side, Verdict
from ._schema import Change, changes

__all__ = [
    "document_of",
    "check_document",
    "compare",
    "Finding",
    "Verdict",
    "FORMAT",
    "RULES",
    "Rule",
    "Side",
    "Change",
    "changes",
]
