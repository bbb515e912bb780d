"""Starts inspectors quickly: everything is imported once, then each is a fork. Reads a JSON list of arguments a line.

Prints the child's process id, waits for it, prints its status (negative: the signal that ended it).
"""

import importlib
import json
import os
import sys

from edge.__main__ import main
from edge.runtime import load_interpreter

for module in ("edge.assembly", "edge.sources.folder", "edge.transports.files"):
    importlib.import_module(module)
load_interpreter()

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  until the child ends
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
