"""Whether a real GPU draws through EGL here, asked in a process of its own since a broken driver may crash it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader")
_PLATFORM_DEVICE, _OPENGL_API, _GL_RENDERER = 0x313F, 0x30A2, 0x1F01
_SURFACE_TYPE, _PBUFFER_BIT, _RENDERABLE_TYPE, _OPENGL_BIT, _NONE = 0x3033, 0x0001, 0x3040, 0x0008, 0x3038


def load_egl(pybullet: Any, client: int) -> str | None:
    """Load pybullet's EGL plugin into a physics server if a GPU serves it; the GPU's name, or None."""
    name = gpu_name()
    plugin = find_spec("eglRenderer")
    if name is None or plugin is None or plugin.origin is None:
        return None
    if pybullet.loadPlugin(plugin.origin, "_eglRendererPlugin", physicsClientId=client) < 0:
        return None
    return name


@cache
def gpu_name() -> str | None:
    """GL_RENDERER of the first EGL device, or None where there is no GPU or only a software renderer."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not any(Path("/dev/dri").glob("renderD*")):
        return None
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__))], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    name = done.stdout.strip()
    if done.returncode != 0 or not name or any(word in name.lower() for word in SOFTWARE):
        return None
    return name


def _query() -> str:
    """GL_RENDERER of the first EGL device that makes a context; raises OSError where there is none."""
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]

    def function(name: bytes, result: Any, *arguments: Any) -> Any:
        address = egl.eglGetProcAddress(name)
        if not address:
            raise OSError(f"EGL lacks {name.decode()}")
        return ctypes.CFUNCTYPE(result, *arguments)(address)

    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query = function(b"eglQueryDevicesEXT", integer, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer))
    display_of = function(b"eglGetPlatformDisplayEXT", pointer, integer, pointer, pointer)
    devices, count = (pointer * 16)(), integer()
    query(16, devices, ctypes.byref(count))
    for index in range(count.value):
        name = _renderer_of(egl, function, display_of(_PLATFORM_DEVICE, devices[index], None))
        if name:
            return name
    raise OSError("no EGL device makes an OpenGL context")


def _renderer_of(egl: Any, function: Any, display: int | None) -> str:
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    egl.eglCreateContext.restype = pointer
    egl.eglCreateContext.argtypes = [pointer, pointer, pointer, pointer]
    shown = pointer(display)
    if not display or not egl.eglInitialize(shown, None, None) or not egl.eglBindAPI(_OPENGL_API):
        return ""
    wanted = (integer * 5)(_SURFACE_TYPE, _PBUFFER_BIT, _RENDERABLE_TYPE, _OPENGL_BIT, _NONE)
    config, found = pointer(), integer()
    if not egl.eglChooseConfig(shown, wanted, ctypes.byref(config), 1, ctypes.byref(found)) or not found.value:
        return ""
    context = pointer(egl.eglCreateContext(shown, config, None, None))
    if not context.value or not egl.eglMakeCurrent(shown, None, None, context):
        return ""
    get_string = function(b"glGetString", ctypes.c_char_p, ctypes.c_uint)
    name = get_string(_GL_RENDERER)
    egl.eglTerminate(shown)
    return name.decode() if name else ""


if __name__ == "__main__":
    sys.stdout.write(_query())
