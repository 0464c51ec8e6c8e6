"""Exports: what is registered, as the files that other tools take.

    system = system_of({"service": [server, bus], "api": [client, Movies]})
    print(bicep(system))

Each format is a function from a `System` to text, the same text each time. `sbrpc export` is made of them.
"""

from ._system import Grant, Part, Process, Right, System, Workload, system_of
from .asyncapi import asyncapi, asyncapi_document
from .az import az
from .bicep import bicep
from .emulator import emulator_config
from .json_schema import json_schema
from .keda import keda
from .page import asyncapi_page
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
    "asyncapi",
    "asyncapi_document",
    "asyncapi_page",
    "az",
    "bicep",
    "emulator_config",
    "json_schema",
    "keda",
    "roles",
    "terraform",
]
