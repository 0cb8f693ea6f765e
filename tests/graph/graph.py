"""The component under Pulumi's mocks: what it registers, with which inputs, depending on what."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pulumi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pulumi.runtime import mocks, rpc
from pulumi.runtime.proto import resource_pb2

from bootstrap.ports import free_ports
from tde_replication import settings, stack_file
from tde_replication.replication import EncryptedReplication
from tde_replication.vault.address import VaultAddress

TOKEN = "hvs.of-the-vault"
PASSWORD = "the-generated-password"
EXPIRES = "2026-11-30T09:00:00+00:00"
VAULT = "https://127.0.0.1:1"
"""Nothing answers there, and says so at once."""
PROJECT, STACK = "tde-replication", "orders"
SECRET = "4dabf18193072939515e22adb298388d"
"""Pulumi's mark of a value, and what it is for secrets."""
SECRET_KIND = "1b47061264138c4ac30d75fd1eb44270"


@dataclass(frozen=True)
class Registered:
    urn: str
    type: str
    name: str
    inputs: dict[str, Any]
    dependencies: list[str]
    because: dict[str, list[str]]
    """By input, those of the dependencies that are its own."""
    secret_outputs: list[str]
    deleted_with: str
    parent: str
    retained: bool

    @property
    def kind(self) -> str:
        """The type without what is the same for all of a provider."""
        return re.sub(r"^pulumi-python:dynamic/\w+:", "", self.type)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass
class Graph:
    """All that was registered, in order, and the component's outputs."""

    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    secret_outputs: set[str] = field(default_factory=set)

    def __getitem__(self, label: str) -> Registered:
        [found] = [resource for resource in self.resources if str(resource) == label]
        return found

    def of(self, kind: str) -> list[Registered]:
        return [resource for resource in self.resources if resource.kind == kind]

    @property
    def labels(self) -> list[str]:
        return sorted(str(resource) for resource in self.resources)

    def before(self, label: str) -> set[str]:
        """Everything that must be there before `label`, near and far."""
        by_urn = {resource.urn: resource for resource in self.resources}
        found: set[str] = set()
        ahead = list(self[label].dependencies)
        while ahead:
            urn = ahead.pop()
            if urn in by_urn and urn not in found:
                found.add(urn)
                ahead += by_urn[urn].dependencies
        return {str(by_urn[urn]) for urn in found}


class Monitor(mocks.MockMonitor):
    """Keeps what mocks do not get to see."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(Made())
        self.graph = graph

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> Any:  # noqa: N802 - gRPC's name
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            self.graph.resources.append(
                Registered(
                    urn=answer.urn,
                    type=request.type,
                    name=request.name,
                    inputs=rpc.deserialize_properties(request.object, keep_unknowns=True),
                    dependencies=list(request.dependencies),
                    because={name: list(of.urns) for name, of in request.propertyDependencies.items() if of.urns},
                    secret_outputs=list(request.additionalSecretOutputs),
                    deleted_with=request.deletedWith,
                    parent=request.parent,
                    retained=request.retainOnDelete,
                )
            )
        return answer


class Made(mocks.Mocks):
    """Every resource comes out as it was declared, with the identities that a real one would have."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ.endswith(":DataDirectory"):
            return "7579821021830312345 2026-11-22T21:00:00Z", outputs
        if args.typ.endswith(":Expiry"):
            outputs |= {"madeAt": "2026-11-30T01:00:00+00:00", "expiresAt": EXPIRES}
        if args.typ.endswith(":Password"):
            outputs["value"] = PASSWORD
        if args.typ.endswith("/vault:Token"):
            outputs["clientToken"] = f"hvs.of-{args.name}"
        return f"{args.name}-id", outputs

    def call(self, _: mocks.MockCallArgs) -> dict[str, Any]:  # type: ignore[override]
        return {}


def installation(directory: Path, *, pg_tde: bool, version: str = "18.6") -> Path:
    """What looks like an installed server; returns its directory of programs."""
    programs = directory / "bin"
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb", "pg_basebackup"):
        (programs / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (programs / name).chmod(0o755)
    if pg_tde:
        extensions = directory / "share" / "extension"
        extensions.mkdir(parents=True)
        (extensions / "pg_tde.control").touch()
    return programs


class Place:
    """Where the declared servers would be: nothing is there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = iter(range(1000))

    def cluster(self, *standbys: str, pg_tde: bool = True, **declared: Any) -> settings.Cluster:
        """A cluster of primary db1, of which more may be declared, and `standbys`; and whatever else is declared."""
        names = ["db1", *standbys]
        programs = str(installation(self.root / f"server {next(self._numbers)}", pg_tde=pg_tde))
        servers = {
            name: {"port": port, "binaries": programs, "dataDirectory": str(self.root / name / "data")}
            for name, port in zip(names, free_ports(len(names)), strict=True)
        }
        servers["db1"] |= declared.pop("db1", {})
        return stack_file.parse("test", {"primary": "db1", "servers": servers, **declared})

    def build_two(self, *clusters: settings.Cluster) -> Graph:
        """In one program: "orders", as the stack is called, and "ledger", …"""
        graph = Graph()
        listen(graph)

        def both() -> pulumi.Output[Any]:
            vault = VaultAddress(VAULT, pulumi.Output.secret(TOKEN), None)
            made = [
                EncryptedReplication(name, cluster, vault_address=vault)
                for name, cluster in zip(("orders", "ledger"), clusters, strict=True)
            ]
            return pulumi.Output.all(*(one.summary for one in made))

        run(both)
        return graph

    def build(
        self, cluster: settings.Cluster, *, preview: bool = False, ca: str | None = None, inside: bool = False
    ) -> Graph:
        """`inside`: the cluster is in another component."""
        graph = Graph()
        listen(graph, preview=preview)
        run(lambda: program(cluster, graph, ca, inside=inside))
        return graph

    def ca(self) -> str:
        """The file of a certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        since = datetime(2026, 1, 1, tzinfo=UTC)
        unsigned = x509.CertificateBuilder(name, name, key.public_key(), 1, since, since + timedelta(days=1))
        path = self.root / "ca.pem"
        path.write_bytes(unsigned.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(path)

    def end(self) -> None:
        shutil.rmtree(self.root)


OUTPUTS = (
    *("primary", "standbys", "primary_dsn", "standby_dsns", "read_write_dsn", "read_only_dsn"),
    *("vault", "encryption", "expires", "summary"),
)
"""Of a component."""


def program(cluster: settings.Cluster, graph: Graph, ca: str | None, *, inside: bool = False) -> pulumi.Output[Any]:
    vault = VaultAddress(VAULT, pulumi.Output.secret(TOKEN), ca)
    around = pulumi.ComponentResource("shop:index:Shop", "shop") if inside else None
    made = EncryptedReplication("orders", cluster, pulumi.ResourceOptions(parent=around), vault_address=vault)

    def keep(name: str) -> pulumi.Output[Any]:
        output = getattr(made, name)

        def store(value: Any) -> None:
            graph.outputs[name] = value

        def mark(secret: bool) -> None:  # noqa: FBT001 - an apply's only argument
            if secret:
                graph.secret_outputs.add(name)

        return pulumi.Output.all(output.apply(store), pulumi.Output.from_input(output.is_secret()).apply(mark))

    return pulumi.Output.all(*(keep(name) for name in OUTPUTS))


def listen(graph: Graph, *, preview: bool = False) -> None:
    mocks.set_mocks(Made(), PROJECT, STACK, preview, monitor=Monitor(graph))


def run(call: Callable[[], Any]) -> None:
    mocks.test(call)()  # type: ignore[no-untyped-call]


def plain(value: Any) -> Any:
    """What a secret input holds; it must be one."""
    assert isinstance(value, dict)
    assert value[SECRET] == SECRET_KIND, value
    return value["value"]


def values_outside_secrets(value: Any) -> list[Any]:
    """All leaves that anybody may see."""
    if isinstance(value, dict):
        if value.get(SECRET) == SECRET_KIND:
            return []
        return [leaf for inner in value.values() for leaf in values_outside_secrets(inner)]
    if isinstance(value, list | tuple):
        return [leaf for inner in value for leaf in values_outside_secrets(inner)]
    return [value]
