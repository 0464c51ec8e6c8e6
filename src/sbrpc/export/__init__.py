"""Exports: what is registered, as the files that other tools take.

    system = system_of({"service": [server, bus], "api": [client, Movies]})
    print(bicep(system))

Each format is a function from a `System` to text, the same text each time. `sbrpc export` is made of them.
"""

from ._asyncapi import asyncapi, asyncapi_document
from ._az import az
from ._bicep import bicep
from ._emulator import emulator_config
from ._json_schema import json_schema
from ._keda import keda
from ._page import asyncapi_page
from ._roles import roles
from ._system import PARTS, Grant, Process, Right, System, Workload, system_of
from ._terraform import terraform

__all__ = [
    "system_of",
    "System",
    "Process",
    "PARTS",
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
