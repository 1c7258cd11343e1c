"""The command line of devcluster."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster import build, checks, images
from devcluster.cluster import DEFAULT_NAME, Cluster
from devcluster.errors import DevclusterError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 1 a failure told in one line, 2 a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except DevclusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, description: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=description, description=description)
        one.add_argument("--name", default=DEFAULT_NAME, help="the cluster's name (default: %(default)s)")
        one.set_defaults(run=run)
        return one

    up = command("up", _up, "start the cluster, repair it, or find it well")
    up.add_argument("--nodes", type=int, choices=(0, 1), help="0: control plane only, no root; 1: with a real node")
    up.add_argument("--hpa-sync", metavar="DURATION", help="period of the autoscaler's loop (default: 2s)")
    command("down", _down, "end the cluster and remove its files")
    command("status", _status, "show what runs and where the logs are")
    command("kubeconfig", _kubeconfig, "print the path of the administrator's kubeconfig")
    execute = command("exec", _exec, "run a command with KUBECONFIG set, and kubectl and helm on the PATH")
    execute.add_argument("--inside", action="store_true", help="run it in the node's network, where pods are reachable")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    command("build", _build, "build the cluster's programs")
    image = command("images", _images, "build the project's images and load them into the cluster")
    image.add_argument(
        "components", nargs="*", metavar="COMPONENT", help=f"any of {', '.join(images.COMPONENTS)}; default: all"
    )
    image.add_argument("--build-only", action="store_true", help="do not load them")
    load = command("load", _load, "load an image from an OCI archive into the cluster")
    load.add_argument("archive", type=Path, metavar="IMAGE.tar")
    command("setup", _setup, "install the distribution's packages that a node and image builds need")
    return parser


def _up(options: argparse.Namespace) -> None:
    Cluster(options.name).up(nodes=options.nodes, hpa_sync=options.hpa_sync)


def _down(options: argparse.Namespace) -> None:
    Cluster(options.name).down()


def _status(options: argparse.Namespace) -> int:
    components = Cluster(options.name).status()
    if not components:
        print(f"there is no cluster {options.name}; `devcluster up --name {options.name}` makes one")
        return 1
    for component in components:
        state = f"pid {component.pid}" if component.pid else "not running"
        print(f"{component.name:<24} {state:<14} {component.log}")
    return 0 if all(component.pid for component in components) else 1


def _kubeconfig(options: argparse.Namespace) -> None:
    print(_existing(options.name).kubeconfig)


def _exec(options: argparse.Namespace) -> None:
    cluster = _existing(options.name)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise DevclusterError("nothing to run: devcluster exec -- kubectl get pods")
    if options.inside:
        command = [*cluster.exec_prefix, *command]
    try:
        os.execvpe(command[0], command, os.environ | cluster.environment())
    except OSError as error:
        raise DevclusterError(f"{command[0]}: {error.strerror}") from error


def _build(_: argparse.Namespace) -> None:
    print(build.build().folder)


def _images(options: argparse.Namespace) -> None:
    built = images.build(options.components or images.COMPONENTS)
    for image in built:
        print(f"{image.reference:<36} {image.bytes / 1e6:6.0f} MB  {image.archive}")
    if not options.build_only:
        for image in built:
            _existing(options.name).load(image.archive)


def _load(options: argparse.Namespace) -> None:
    _existing(options.name).load(options.archive)


def _setup(_: argparse.Namespace) -> None:
    checks.install()


def _existing(name: str) -> Cluster:
    cluster = Cluster(name)
    if not cluster.kubeconfig.exists():
        raise DevclusterError(f"there is no cluster {name}; `devcluster up --name {name}` makes one")
    return cluster


if __name__ == "__main__":
    sys.exit(main())
