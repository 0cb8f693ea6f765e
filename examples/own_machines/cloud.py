"""Stands for a cloud: machines that a command of yours makes.

In a program of your own, it is `aws.ec2.Instance`, `hcloud.Server` or the like. The address is known once that has made the
machine, and its host key too: best made by the program and put there by cloud-init (`ssh_keys`), so that nobody has to trust what
answers first.
"""

import json
import subprocess
from typing import Any

from pulumi import Output, ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider


class MachineProvider(ResourceProvider):
    """By ``COMMAND make NAME``, which prints ``{"address": …, "host_keys": …}``, and ``COMMAND remove NAME ADDRESS``."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        made = subprocess.run([props["command"], "make", props["name"]], check=True, stdout=subprocess.PIPE)
        return CreateResult(props["name"], {**props, **json.loads(made.stdout)})

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=olds["command"] != news["command"], replaces=[])

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        subprocess.run([props["command"], "remove", props["name"], props["address"]], check=True)


class Machine(Resource, module="own", name="Machine"):
    address: Output[str]
    host_keys: Output[str]
    """As ssh-keyscan writes them."""

    def __init__(self, name: str, command: str, opts: ResourceOptions | None = None) -> None:
        outputs = {"address": None, "host_keys": None}
        super().__init__(MachineProvider(), name, {"name": name, "command": command, **outputs}, opts)
