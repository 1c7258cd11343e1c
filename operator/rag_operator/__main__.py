"""The command line: `rag-operator run`."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from rag_operator import settings
from rag_operator.cluster import Cluster, ConfigError
from rag_operator.lease import LeaseLostError
from rag_operator.operator import Operator

PORT = 8080


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when told to stop, 1 after a failure, 2 when it cannot start as it is configured."""
    parser = argparse.ArgumentParser(prog="rag-operator", description="The operator of RAGServices.")
    parser.add_argument("command", nargs="?", choices=["run"], default="run", help="run the operator (default)")
    parser.add_argument("--port", type=int, default=PORT, help="port of probes and metrics (default: %(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Kopf tells every event that it hands on.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(_run(settings.read(os.environ), options.port))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0
    except (ConfigError, OSError) as error:
        print(f"rag-operator: {error}", file=sys.stderr)
        return 2
    except LeaseLostError as error:
        logging.error("the operator stops: %s", error)
        return 1
    except Exception:
        logging.exception("the operator stops")
        return 1
    return 0


async def _run(configured: settings.Settings, port: int) -> None:
    cluster = await Cluster.connect(os.environ)
    try:
        await Operator(cluster, configured).run(port)
    finally:
        await cluster.close()


if __name__ == "__main__":
    sys.exit(main())
