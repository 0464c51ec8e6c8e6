"""Exports: what is registered, as the files that other tools take.

    system = system_of({"service": [server, bus], "api": [client, Movies]})
    print(bicep(system))

Each format is a function from a `System` to text, the same text each time. `sbrpc export` is made of them.
"""

from ._system import Grant, Part, Process, Right, System, Workload, system_of
from .az import az
from .bicep import bicep
from .emulator import emulator_config
from .keda import keda
from .roles import roles
from .terraform import terraform

__all__ = [
    "system_of",
    "System",
    "Process",
    "Part",
    "Grant",
    "Right",
    "Workload",
    "az",
    "bicep",
    "emulator_config",
    "keda",
    "roles",
    "terraform",
]
