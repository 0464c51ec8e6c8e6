"""Role assignments: what each process may do, for a review, a script, or Bicep's `loadJsonContent`."""

from __future__ import annotations

import json

from ._system import Grant, System
from ._text import ROLES

__all__ = ["roles"]


def roles(system: System) -> str:
    """The least that each process needs: Data Sender or Data Receiver, each on one entity; never Data Owner.

    JSON: `{"assignments": [...]}`, where `scope` is to be appended to the id of the namespace.
    """
    return json.dumps({"assignments": [_assignment(grant) for grant in system.grants()]}, indent=2) + "\n"


def _assignment(grant: Grant) -> dict[str, object]:
    return {
        "process": grant.process,
        "right": grant.right.value,
        "entity": grant.path,
        "reason": grant.reason,
        "role": ROLES[grant.right].name,
        "roleDefinitionId": ROLES[grant.right].id,
        "scope": scope_of(grant),
    }


def scope_of(grant: Grant) -> str:
    """The resource a grant is for, below the namespace."""
    if not grant.topic:
        return f"/queues/{grant.entity}"
    below = "" if grant.subscription is None else f"/subscriptions/{grant.subscription}"
    return f"/topics/{grant.entity}{below}"
