"""The command `rag-service`."""

import argparse
import logging
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from rag_service import workers
from rag_service.contract import settings
from rag_service.contract.model import faults
from rag_service.models import ModelError, prepare

BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code is 2 when the configuration or a model cannot be used."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if options.command == "serve":
            return _serve(options)
        _prepare(options)
    except ValidationError as error:
        for location, message in faults(error):
            print(f"{options.config}: {'.'.join(map(str, location)) or 'the file'}: {message}", file=sys.stderr)
        return BAD_CONFIGURATION
    except (ModelError, OSError, ValueError) as error:
        print(f"rag-service: {error}", file=sys.stderr)
        return BAD_CONFIGURATION
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rag-service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer requests")
    serve.add_argument("--config", type=Path, required=True, help="settings as JSON")
    serve.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")  # noqa: S104
    serve.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (%(default)s)")
    model = commands.add_parser("model", help="work on models").add_subparsers(dest="step", required=True)
    make = model.add_parser("prepare", help="make a model's files ready to be served")
    make.add_argument("uri", help=" or ".join(f"{scheme}://…" for scheme in settings.MODEL_SCHEMES))
    make.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write")
    make.add_argument(
        "--precision",
        type=_precisions,
        default="auto",
        metavar="P,P",
        help="graphs to make: fp32, which also serves bf16, always; int8; auto: int8 where its library is installed",
    )
    make.add_argument(
        "--no-trial",
        action="store_false",
        dest="trial",
        help="leave it to whoever serves the model first to find out what runs it fastest",
    )
    return parser


def _precisions(text: str) -> Collection[prepare.Made]:
    """What `--precision` asks for. Raises argparse.ArgumentTypeError."""
    named = set(text.split(","))
    if unknown := named - {*get_args(settings.Precision), "auto"}:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: write fp32, bf16, int8 or auto")
    if "int8" in named or ("auto" in named and prepare.quantises()):
        return (*prepare.ALWAYS, "int8")
    return prepare.ALWAYS


def _serve(options: argparse.Namespace) -> int:
    # The first process of a container hears only signals that it handles, and the server handles them once it listens.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    wanted = settings.load(options.config)
    worker = workers.this()
    if wanted.workers > 1 and not worker:
        return workers.run(wanted.workers, options.host, options.port)
    # What only serving needs is imported here: preparing a model and keeping workers do without it.
    from rag_service import app, cache, cpus, server  # noqa: PLC0415
    from rag_service.cache import pairs  # noqa: PLC0415
    from rag_service.engine import rankers, verdicts  # noqa: PLC0415
    from rag_service.watch import Drain  # noqa: PLC0415

    found = {model: prepare.find(model.uri) for model in wanted.models}
    # All trials come before the first model is loaded: they should have the memory.
    variants = {
        model: verdicts.choose(*found[model], wanted.gate, model.backend, model.precision) for model in wanted.models
    }
    loaded = {
        model.name: rankers.load(*found[model], variants[model], cpus.threads_of(wanted)) for model in wanted.models
    }
    redis = wanted.cache.redis
    kept = pairs.connect(wanted.service, wanted.cache, redis) if redis else cache.NoCache()
    drain = Drain()
    made = app.create(wanted, loaded, kept, drain, worker)
    server.run(made, wanted, drain, worker or (options.host, options.port))
    return 0


def _prepare(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    made = prepare.prepare(options.uri, options.out, options.precision)
    graphs = " and ".join(made.graphs) or "for sentence-transformers alone, which has to be installed to serve it"
    print(f"{options.out}: {made.recipe.kind} of {made.uri}, {graphs}")
    if options.trial:
        from rag_service.engine import backends, verdicts  # noqa: PLC0415 (not every environment has what they import)

        if made.graphs or backends.installed("sentence-transformers"):
            print(f"on this CPU it is served by {verdicts.choose(options.out, made, settings.FidelityGate())}")


if __name__ == "__main__":
    sys.exit(main())
