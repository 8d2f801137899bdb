"""Finding video devices in a sysfs tree as Linux lays it out, and choosing one of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sensors.errors import SensorError, SpecError
from sensors.video_devices import capture_capable, choose_video_device, find_video_devices


class Sysfs:
    """A tree as Linux lays it out: class/video4linux/videoN is a link into the device, under its USB interface."""

    def __init__(self, folder: Path) -> None:
        self.root, self.dev = folder / "sys/class/video4linux", folder / "dev"
        self._bus = folder / "sys/devices/pci0000:00/0000:00:14.0/usb1"
        self.root.mkdir(parents=True)

    def plug(self, port: str, name: str, nodes: list[int], serial: str | None = None, vendor: str = "046d") -> None:
        device = self._bus / port
        device.mkdir(parents=True)
        for file, text in {"idVendor": vendor, "idProduct": "082d", "product": name, "serial": serial}.items():
            if text is not None:
                (device / file).write_text(f"{text}\n")
        for index, number in enumerate(nodes):
            node = device / f"{port}:1.0/video4linux/video{number}"
            node.mkdir(parents=True)
            (node / "name").write_text(f"{name}\n")
            (node / "index").write_text(f"{index}\n")
            (node / "dev").write_text(f"81:{number}\n")
            (node / "device").symlink_to("../../../" + f"{port}:1.0")
            link = os.path.relpath(node, self.root)
            assert link.startswith("../../devices/pci")
            (self.root / node.name).symlink_to(link)


def test_devices_are_found_with_their_port_and_serial(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.plug("1-2", "HD Pro Webcam C920", [0, 1], "A1B2")
    tree.plug("1-3.4", "DIGIT", [2, 10], "D20001", vendor="2833")
    platform = tmp_path / "sys/devices/platform/isp/video4linux/video11"
    platform.mkdir(parents=True)
    (platform / "name").write_text("isp\n")
    (platform / "device").symlink_to("../..")
    (tree.root / "video11").symlink_to(os.path.relpath(platform, tree.root))
    (tree.root / "v4l-subdev0").symlink_to(os.path.relpath(platform, tree.root))
    found = find_video_devices(tree.root, tree.dev)
    assert [Path(device.path).name for device in found] == ["video0", "video1", "video2", "video10", "video11"]
    assert [device.capture for device in found] == [True, False, True, False, True]
    digit = found[2]
    assert (digit.name, digit.serial, digit.vendor, digit.product) == ("DIGIT", "D20001", "2833", "082d")
    assert (digit.port, digit.interface) == ("1-3.4", "1-3.4:1.0")
    assert found[4].port == found[4].serial == ""
    assert find_video_devices(tmp_path / "none") == ()


@pytest.mark.parametrize("numbers", [([0], [2]), ([2], [0])], ids=["one start", "the next start"])
def test_equal_cameras_keep_their_names_when_their_numbers_swap(
    numbers: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    tree = Sysfs(tmp_path)
    tree.plug("1-1", "Twin", numbers[0], "LEFT")
    tree.plug("1-2", "Twin", numbers[1], "RIGHT")
    found = find_video_devices(tree.root, tree.dev)
    for wanted, nodes in (("LEFT", numbers[0]), ("serial:RIGHT", numbers[1]), ("1-1", numbers[0]),
                          ("port:1-2:1.0", numbers[1])):  # fmt: skip
        assert choose_video_device(wanted, found).path == str(tree.dev / f"video{nodes[0]}")
    with pytest.raises(SensorError, match=r"serial 'LEFT', USB port 1-1.*by 'port:'"):
        choose_video_device("twin", found)


def test_what_is_meant_is_one_camera_or_an_error_that_lists_them(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.plug("1-1", "GelSight Mini R0B 2DBV-7JQK", [0, 1])
    tree.plug("1-2", "Webcam", [2], "SAME")
    tree.plug("1-4", "Other", [3], "SAME")
    found = find_video_devices(tree.root, tree.dev)
    assert choose_video_device("name:gelsight mini", found).port == "1-1"
    assert choose_video_device(str(tree.dev / "video2"), found).name == "Webcam"
    assert choose_video_device("web", found).name == "Webcam"
    with pytest.raises(SensorError, match=r"USB port 1-2\).*USB port 1-4\)"):
        choose_video_device("SAME", found)
    for absent in ("D20001", "serial:Webcam", "name:SAME", str(tree.dev / "video1")):  # video1 gives no pictures
        with pytest.raises(SensorError, match=r"Webcam.*Read the rule"):
            choose_video_device(absent, found, help_line="Read the rule.")
    with pytest.raises(SensorError, match="lsusb"):
        choose_video_device("D20001", ())
    with pytest.raises(SpecError):
        choose_video_device("serial:", found)


def test_a_node_says_whether_it_gives_pictures() -> None:
    def answer(card: int, node: int) -> bytes:
        return bytes(84) + card.to_bytes(4, sys.byteorder) + node.to_bytes(4, sys.byteorder) + bytes(12)

    own = 0x80000000
    assert capture_capable(answer(own | 0x1, 0x1))
    assert capture_capable(answer(own, 0x1000))  # several planes
    assert capture_capable(answer(0x1, 0))  # an old driver, which tells of the card only
    assert not capture_capable(answer(own | 0x1, 0x00800000))  # metadata
