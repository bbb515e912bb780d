"""Python runs this first when its folder is in PYTHONPATH: steps of a flow under test then build no real runtime.

A runtime is 50 MB of wheels from the package index, installed on each device. Where a test runs whole flows, whose
steps are processes of their own, the runtime's component only points at the device environment that is there.
"""

import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType

TARGET = "inspection.fleet.components.build"


class _Loader(importlib.abc.Loader):
    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> "ModuleType | None":
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        sys.path.append(str(Path(__file__).parents[1]))
        from local_fleet import ready_runtime

        module.build_runtime = lambda targets, extras, scratch, *rest: ready_runtime(scratch)  # type: ignore[attr-defined]


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != TARGET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
