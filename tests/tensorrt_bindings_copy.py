"""TensorRT's real Python bindings, importable on a machine without TensorRT's libraries.

The wheel `tensorrt-cu12-bindings` holds the bindings alone; their module is linked with libraries
of gigabytes. In a copy of it the names of the libraries, and of the few functions that are taken
from them, are written over by others that every machine has. So the module loads, with every class,
method and signature it has; nothing of it may be called.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_LIBRARIES = rb"libnv[a-z_]+\.so\.\d+"
_FUNCTIONS = (
    rb"create\w+_INTERNAL|getNvOnnxParserVersion|get\w*PluginRegistry|initLibNvInferPlugins"
)


def copy_bindings(package: Path, folder: Path) -> Path:
    """Copy an installed `tensorrt_bindings` as the package `tensorrt` that can be imported.

    Import it in its own process, after `sys.setdlopenflags(os.RTLD_LAZY)`.
    """
    copied = Path(shutil.copytree(package, folder / "tensorrt"))
    (module,) = copied.glob("tensorrt*.so")
    code = module.read_bytes()
    for names, stand_in in ((_LIBRARIES, b"libm.so.6"), (_FUNCTIONS, b"floor")):
        for name in set(re.findall(rb"\0(%b)(?=\0)" % names, code)):
            code = code.replace(b"\0%b\0" % name, b"\0%b\0" % stand_in.ljust(len(name), b"\0"))
    module.write_bytes(code)
    return copied
