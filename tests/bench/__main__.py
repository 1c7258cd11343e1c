"""`make bench`: measures, prints, and writes the figures to a folder."""

import argparse
import sys
from pathlib import Path

from tests.bench import docs, quality, rerank

ROOT = Path(__file__).parents[2]
PARTS = ("rerank", "quality")


def main() -> int:
    """Run the parts that are wanted."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help="of rerank,quality; both by default")
    parser.add_argument("--data", default="", help="folder with the test collections; a look-alike is shipped")
    parser.add_argument("--rounds", type=int, default=3, help="of the rerank bench (%(default)s)")
    parser.add_argument("--seconds", type=float, default=rerank.Length().seconds, help="a server, load and round")
    parser.add_argument("--no-peers", action="store_true", help="do not compare with other servers")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder for results and models")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    wanted = [part for part in options.only.split(",") if part] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"ONLY={','.join(sorted(unknown))}: write {' or '.join(PARTS)}")
    data = Path(options.data) if options.data else None
    if data and not data.is_dir():
        parser.error(f"DATA={data}: there is no such folder")
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for part in wanted:
        if part == "rerank":
            length = rerank.Length(seconds=options.seconds)
            values, facts, report = rerank.run(out, options.rounds, length, not options.no_peers)
        else:
            values, facts, report = quality.run(out, data)
        text = docs.section(values, facts, report)
        print(f"\n{text}\n")
        if options.write_docs:
            docs.put(ROOT / "docs" / "benchmarks.md", part, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
