"""Compile the library of `ingestor.native` when the project is installed or built.

Without a C compiler the install goes on, and says so in one line. INGESTOR_NATIVE=required makes
that an error, INGESTOR_NATIVE=off leaves the library out.
"""

from __future__ import annotations

import os
import runpy
import sysconfig
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "ingestor/native/libingestor.so"


class NativeBuildHook(BuildHookInterface):
    """Puts the library beside its sources, and into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. version: "standard" or "editable", of a wheel; of an sdist there is nothing."""
        if self.target_name != "wheel":
            return
        wish = os.environ.get("INGESTOR_NATIVE", "")
        in_place = Path(self.root, LIBRARY)
        # Processes may run from the checkout while a wheel is made of it.
        is_editable = version == "editable"
        target = in_place if is_editable else Path(mkdtemp(), in_place.name)
        problem = "INGESTOR_NATIVE=off"
        if wish != "off":
            script = runpy.run_path(str(in_place.with_name("build.py")))
            problem = script["compile_library"](target)
        elif is_editable:
            in_place.unlink(missing_ok=True)
        if problem is None:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
            if not is_editable:
                build_data["force_include"][str(target)] = LIBRARY
        elif wish == "required":
            raise RuntimeError(f"INGESTOR_NATIVE=required: {problem}")
        else:
            self.app.display_warning(f"{problem}: frames are read in Python, a third as fast")
