"""KEDA: scales each process by the messages that wait for it, with workload identity and without a key.

`azure-servicebus` scaler and `TriggerAuthentication`: KEDA 2.16. The scaler reads how many messages there are
through the management API, so its identity, and it alone, needs the role Azure Service Bus Data Owner.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ._system import System, Workload
from ._text import names_of

__all__ = ["keda"]

_AUTHENTICATION = """\
# Made by `sbrpc export keda`: make it again rather than edit it.
# KEDA counts messages through the management API: its identity needs the role Azure Service Bus Data Owner on
# the namespace. The identities of the processes do not.
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: sbrpc-servicebus
spec:
  podIdentity:
    provider: azure-workload
"""


def keda(system: System, *, namespace: str = "NAMESPACE", most: int = 10) -> str:
    """A `ScaledObject` for each process that takes messages, a trigger for each server and subscription.

    One instance is added for as many messages as one instance works on at once. Processes that serve calls
    keep one instance, so that no call waits for a start; those that only handle events may go down to none.
    """
    names = names_of((process.name for process in system.processes), separator="-")
    documents = [_AUTHENTICATION]
    for process in system.processes:
        loads = [each for each in system.workloads() if each.process == process.name]
        if loads:
            lines = [
                "apiVersion: keda.sh/v1alpha1",
                "kind: ScaledObject",
                "metadata:",
                f"  name: {_text(names[process.name])}",
                "spec:",
                "  scaleTargetRef:",
                f"    name: {_text(names[process.name])}",
                f"  minReplicaCount: {1 if process.servers else 0}",
                f"  maxReplicaCount: {most}",
                "  triggers:",
            ]
            for load in loads:
                lines += _trigger(load, namespace)
            documents.append("\n".join(lines) + "\n")
    return "---\n".join(documents)


def _trigger(load: Workload, namespace: str) -> Iterator[str]:
    if load.sessions:
        yield "  # With sessions: counted are messages, while an instance takes so many sessions at once."
    yield "  - type: azure-servicebus"
    yield "    metadata:"
    yield f"      namespace: {_text(namespace)}"
    if load.subscription is None:
        yield f"      queueName: {_text(load.entity)}"
    else:
        yield f"      topicName: {_text(load.entity)}"
        yield f"      subscriptionName: {_text(load.subscription)}"
    yield f"      messageCount: {_text(str(load.at_once))}"
    yield "    authenticationRef:"
    yield "      name: sbrpc-servicebus"


def _text(text: str) -> str:
    """A text in YAML; every JSON string is one."""
    return json.dumps(text)
