"""What pulumi-docker makes for servers in containers: a network, and for every server its image, volume and container.

The container is made, not started: before its first start the volume needs a data directory, and later starts are the server's
own affair (`tde_replication.postgres.server`).
"""

from collections.abc import Mapping

import pulumi_docker as docker
from pulumi import ResourceOptions

from tde_replication.hosts.docker.containers import ACCOUNT
from tde_replication.hosts.docker.found import DIRECTORY, IMAGE
from tde_replication.hosts.docker.placement import PORT, SOCKETS, STACK, ContainerPlacement
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.hosts.registration import Place

GRACE = 60
"""Seconds for a fast shutdown, whose checkpoint takes its time; then the container is killed."""
SHARED_MEMORY = 256
"""MiB of /dev/shm; Docker's 64 are too few for parallel queries."""


def register(placements: Mapping[str, Placement], context: PlacementContext, opts: ResourceOptions) -> dict[str, Place]:
    containers = {name: one for name, one in placements.items() if isinstance(one, ContainerPlacement)}
    labels = [docker.NetworkLabelArgs(label=STACK, value=context.whole)]
    networks = {
        name: docker.Network(context.cluster, name=name, labels=labels, opts=opts)
        for name in {one.network for one in containers.values()}  # all have the cluster's
    }
    images = {
        image: docker.RemoteImage(context.named(image), name=image, keep_locally=True, opts=opts)
        for image in {one.image for one in containers.values()}
    }
    found = {}
    for name, one in containers.items():
        container = _container(context.named(name), one, context, networks[one.network], images[one.image], opts)
        found[name] = Place((container,), container)
    return found


def _container(
    label: str,
    placement: ContainerPlacement,
    context: PlacementContext,
    network: docker.Network,
    image: docker.RemoteImage,
    opts: ResourceOptions,
) -> docker.Container:
    name, data = placement.replication_host, placement.data
    facts = {STACK: context.whole, IMAGE: placement.image, DIRECTORY: str(data.parent)}
    volume = docker.Volume(
        label,
        name=name,
        labels=[docker.VolumeLabelArgs(label=key, value=value) for key, value in facts.items()],
        # Another image is no reason for another volume: what the labels say of it is what it was made with.
        opts=ResourceOptions.merge(opts, ResourceOptions(ignore_changes=["labels"], retain_on_delete=context.keep)),
    )
    return docker.Container(
        label,
        name=name,
        image=image.image_id,
        entrypoints=[str(placement.binaries / "postgres")],
        command=["-D", str(data)],
        user=ACCOUNT,
        # PostgreSQL as process 1 would inherit every process that its parent leaves behind, and takes the end of one by a
        # signal for a crash of its own.
        init=True,
        network_mode=network.name,
        networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=name) for name in [context.vault_network] if name],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path=str(data.parent))],
        ports=[docker.ContainerPortArgs(internal=PORT, external=placement.published, ip="127.0.0.1")],
        start=False,
        must_run=False,
        restart="unless-stopped",
        stop_signal="SIGINT",
        stop_timeout=GRACE,
        destroy_grace_seconds=GRACE,
        shm_size=SHARED_MEMORY,
        healthcheck=docker.ContainerHealthcheckArgs(
            tests=["CMD", str(placement.binaries / "pg_isready"), "-q", "-h", SOCKETS, "-p", str(PORT)],
            interval="10s",
            timeout="5s",
            retries=6,
            start_period="30s",
        ),
        opts=opts,
    )
