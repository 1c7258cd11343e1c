"""Starts `rag-loadtest` over and over from one process that has imported it: Locust alone takes a second.

Reads one command line a line from stdin, as JSON, with the files for its output, and writes its process number when it
has started and its exit status when it has ended.
"""

import json
import os
import sys

from rag_loadtest.__main__ import main


def start(arguments: list[str], stdout: str, stderr: str) -> int:
    """Fork, run `rag-loadtest` in the child, and return its process number. In the child this never returns."""
    if number := os.fork():
        return number
    for file, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["rag-loadtest", *arguments]
    main()
    raise AssertionError("main() returned, and did not exit")


if __name__ == "__main__":
    for line in sys.stdin:
        number = start(**json.loads(line))
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)
