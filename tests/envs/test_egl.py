"""The GPU is used only where it is one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from envs import egl


@pytest.mark.parametrize(
    ("devices", "code", "printed", "expected"),
    [
        (True, 0, "NVIDIA H200/PCIe/SSE2", "NVIDIA H200/PCIe/SSE2"),
        (True, 0, "llvmpipe (LLVM 15.0.6, 256 bits)", None),
        (True, 1, "", None),
        (True, 0, "", None),
        (False, 0, "NVIDIA H200/PCIe/SSE2", None),
    ],
)
def test_which_renderer_counts(
    monkeypatch: pytest.MonkeyPatch, devices: bool, code: int, printed: str, expected: str | None
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, printed + "\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("nvidia0")] if devices else []))
    egl.gpu_name.cache_clear()
    assert egl.gpu_name() == expected
    egl.gpu_name.cache_clear()


def test_a_driver_that_hangs_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("nvidia0")]))
    egl.gpu_name.cache_clear()
    assert egl.gpu_name() is None
    egl.gpu_name.cache_clear()
