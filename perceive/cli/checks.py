"""What ``perceive doctor`` looks at: one function a subject, each returning findings. Nothing here needs an extra."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from enum import Enum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from sensors.video_devices import find_video_devices

EXTRAS = {  # import name -> (extra, what it is for)
    "rerun": ("viewer", "live 3D viewing by `perceive view`"),
    "pyrealsense2": ("realsense", "Intel RealSense depth cameras"),
    "velodyne_decoder": ("lidar", "Velodyne LiDARs"),
}
LOW_DISK_GIB = 5.0


class State(str, Enum):
    """Of what was looked at."""

    WORKS = "works"
    ABSENT = "absent"  # not needed by the core
    BROKEN = "broken"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        state: how it is.
        detail: what was found.
        fix: what to do; empty if nothing.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


def check_python() -> list[Check]:
    """The interpreter and this package."""
    good = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, perceive {_version('perceive')}"
    return [Check("python", State.WORKS if good else State.BROKEN, detail, "" if good else "Use Python 3.11 or newer.")]


def check_torch() -> list[Check]:
    """torch multiplies, and with how many threads."""
    import torch

    ones = torch.ones(8, 8)
    good = bool((ones @ ones == 8).all())
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads on {cores} cores"
    return [Check("torch", State.WORKS if good else State.BROKEN, detail, "" if good else "Install torch again.")]


def check_gpu() -> list[Check]:
    """GPUs that torch can use."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [Check("gpu", State.WORKS, ", ".join(names))]
    if torch.backends.mps.is_available():
        return [Check("gpu", State.WORKS, "Apple GPU (device=mps)")]
    if any(Path("/dev").glob("nvidia[0-9]*")):
        fix = "Install a torch built for CUDA; `nvidia-smi` must work too."
        return [Check("gpu", State.ABSENT, f"a device is there, but torch {torch.__version__} cannot use it", fix)]
    return [Check("gpu", State.ABSENT, "none; everything runs on the CPU")]


def check_torchvision() -> list[Check]:
    """A torchvision that does not fit torch breaks other packages, though nothing here imports it."""
    if find_spec("torchvision") is None:
        return []
    done = _python("import torchvision")
    if done is None:
        return [Check("torchvision", State.WORKS, f"{_version('torchvision')} (not used by perceive)")]
    fix = "Uninstall torchvision, or install the build that belongs to this torch: transformers may trip over it."
    return [Check("torchvision", State.ABSENT, f"installed but does not import: {done}", fix)]


def check_pybullet() -> list[Check]:
    """The simulator makes a world and steps it."""
    wrong = _python(
        "import pybullet as p; c = p.connect(p.DIRECT); p.stepSimulation(physicsClientId=c); p.disconnect(c)"
    )
    if wrong is None:
        return [Check("pybullet", State.WORKS, _version("pybullet"))]
    fix = "pip install pybullet (building it from source needs a C++ compiler and Python headers)"
    return [Check("pybullet", State.BROKEN, wrong, fix)]


def check_renderer() -> list[Check]:
    """What draws simulated cameras."""
    from envs.egl import gpu_name

    name = gpu_name()
    if name is not None:
        return [Check("renderer", State.WORKS, f"EGL on {name} (env.renderer=auto); TinyRenderer on the CPU otherwise")]
    return [Check("renderer", State.WORKS, "TinyRenderer on the CPU (no GPU serves EGL)")]


def check_open3d() -> list[Check]:
    """Open3D and the system library that its wheel lacks."""
    # Found without importing: open3d takes seconds to load, and the library is what is usually missing.
    if find_spec("open3d") is None:
        return [Check("open3d", State.BROKEN, "not installed", "pip install open3d")]
    if sys.platform != "linux":
        return [Check("open3d", State.WORKS, _version("open3d"))]
    try:
        ctypes.CDLL("libusb-1.0.so.0")
    except OSError:
        missing = "the system library libusb-1.0.so.0 is missing"
        return [Check("open3d", State.BROKEN, missing, "sudo apt-get install libusb-1.0-0")]
    return [Check("open3d", State.WORKS, f"{_version('open3d')}, libusb-1.0 found")]


def check_extras() -> list[Check]:
    """Optional packages of pyproject.toml."""
    found = []
    for module, (extra, purpose) in EXTRAS.items():
        if find_spec(module) is None:
            found.append(
                Check(
                    f"extra {extra}",
                    State.ABSENT,
                    f"{module} is not installed ({purpose})",
                    f"pip install 'perceive[{extra}]'",
                )
            )
        else:
            package = metadata.packages_distributions().get(module, [module])[0]
            found.append(Check(f"extra {extra}", State.WORKS, f"{package} {_version(package)}"))
    return found


def check_cameras(devices: Path = Path("/dev")) -> list[Check]:
    """Video devices, whether this user may open them, and by what a config can name those that give pictures."""
    nodes = sorted(devices.glob("video[0-9]*"))
    access = _access("cameras", nodes, "video", "no /dev/video*; plug a USB camera in")
    if access.state is not State.WORKS:
        return [access]
    named = [str(device) for device in find_video_devices() if device.capture]
    return [replace(access, detail="; ".join(named) or access.detail)]


def check_serial(devices: Path = Path("/dev")) -> list[Check]:
    """Serial devices (grippers, force sensors, microcontrollers) and whether this user may open them."""
    ports = sorted([*devices.glob("ttyUSB*"), *devices.glob("ttyACM*")])
    return [_access("serial devices", ports, "dialout", "no /dev/ttyUSB* or /dev/ttyACM*")]


def check_realsense() -> list[Check]:
    """RealSense cameras, if the extra is installed."""
    if find_spec("pyrealsense2") is None:
        return []
    code = (
        "from sensors.realsense_devices import find; "
        "print(*(f'{c.name}, serial {c.serial}, firmware {c.firmware}, USB {c.usb}' for c in find()), sep='; ')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    names = done.stdout.strip()
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["crashed"])[-1]
        return [Check("realsense", State.ABSENT, last, "pip install --force-reinstall pyrealsense2")]
    if not names:
        return [
            Check("realsense", State.ABSENT, "no camera answers", "Use a USB 3 port, and the librealsense udev rules.")
        ]
    return [Check("realsense", State.WORKS, names)]


def check_disk(folder: Path = Path()) -> list[Check]:
    """Room for episodes and checkpoints in this folder."""
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        return [
            Check("disk", State.BROKEN, "this folder cannot be written", "Change to another folder, or set output=...")
        ]
    if free < LOW_DISK_GIB:
        return [
            Check("disk", State.BROKEN, f"{free:.1f} GiB free here", f"Free {LOW_DISK_GIB:.0f} GiB, or set output=...")
        ]
    return [Check("disk", State.WORKS, f"{free:.0f} GiB free here")]


def _access(name: str, devices: list[Path], group: str, none: str) -> Check:
    if not devices:
        return Check(name, State.ABSENT, none)
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        fix = f"sudo usermod -aG {group} $USER, then log in again"
        return Check(name, State.ABSENT, f"{', '.join(map(str, closed))}: no permission", fix)
    return Check(name, State.WORKS, ", ".join(map(str, devices)))


def _python(code: str) -> str | None:
    """Run code in a process of its own, since a broken native library may crash it; None, or what went wrong."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"crashed with status {done.returncode}"])[-1]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"
