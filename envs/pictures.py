"""Pictures: what virtual cameras see, drawn by one of pybullet's two renderers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from envs.egl import load_egl
from envs.opengl import projection, view
from sensors.base import Picture
from sensors.errors import SensorError, SpecError, nearest
from sensors.geometry import FloatArray

RENDERERS = ("tiny", "egl", "auto")


@dataclass(frozen=True)
class Light:
    """Light of a scene.

    Attributes:
        direction: towards the light, base frame.
        ambient: share of light that comes from everywhere, 0 to 1.
        diffuse: share that comes from ``direction``.
        specular: strength of highlights.
    """

    direction: tuple[float, float, float] = (0.4, 0.3, 1.0)
    ambient: float = 0.6
    diffuse: float = 0.4
    specular: float = 0.05


@final
class Pictures:
    """Draws the pictures of one world.

    Args:
        bullet: the module pybullet.
        client: the physics server.
        renderer: "tiny" (CPU), "egl" (GPU) or "auto" = egl where a GPU really serves it.

    Attributes:
        light: of later pictures.
        name: what draws the pictures: "tiny (CPU)" or "egl (<name of the GPU>)".

    Raises:
        SpecError: ``renderer`` is none of these.
        SensorError: "egl" was asked for and no GPU serves it.
    """

    def __init__(self, bullet: Any, client: int, renderer: str) -> None:
        check_renderer(renderer)
        self._bullet, self._client = bullet, client
        self.light = Light()
        self.name = "tiny (CPU)"
        self._cameras: dict[bytes, list[float]] = {}
        self._renderer = bullet.ER_TINY_RENDERER
        if renderer != "tiny":
            name = load_egl(bullet, client)
            if name is not None:
                self.name, self._renderer = f"egl ({name})", bullet.ER_BULLET_HARDWARE_OPENGL
            elif renderer == "egl":
                raise SensorError(
                    "PyBulletWorld", "an EGL device with a GPU", "none, or a software one", "Use renderer: tiny."
                )

    def render(
        self,
        base_from_camera: FloatArray,
        intrinsics_px: FloatArray,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
    ) -> Picture:
        """The picture of a pinhole camera; depth is exact to rounding, 0 beyond ``far_m`` and where nothing is."""
        key = np.asarray([*intrinsics_px, width, height, near_m, far_m], dtype=float).tobytes()
        found = self._cameras.get(key)
        if found is None:
            centre = 0.0 if self._renderer == self._bullet.ER_TINY_RENDERER else 0.5
            found = projection(intrinsics_px, width, height, near_m, far_m, centre)
            self._cameras = {**dict(list(self._cameras.items())[-15:]), key: found}
        _, _, rgba, buffer, body = self._bullet.getCameraImage(
            width,
            height,
            view(base_from_camera),
            found,
            lightDirection=self.light.direction,
            lightAmbientCoeff=self.light.ambient,
            lightDiffuseCoeff=self.light.diffuse,
            lightSpecularCoeff=self.light.specular,
            shadow=0,
            renderer=self._renderer,
            physicsClientId=self._client,
        )
        buffer = np.asarray(buffer, dtype=np.float64).reshape(height, width)
        depth = (far_m * near_m) / (far_m - (far_m - near_m) * buffer)
        body = np.array(body, dtype=np.int32).reshape(height, width)
        # Of the background, some ranges leave the software renderer's buffer a rounding error below 1.
        depth[(buffer >= 1.0) | (body < 0)] = 0.0
        rgb = np.ascontiguousarray(np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3])
        return Picture(rgb, depth.astype(np.float32), body)


def check_renderer(renderer: str) -> None:
    """Raise SpecError unless it is one of :data:`RENDERERS`."""
    if renderer not in RENDERERS:
        expected = "'tiny', 'egl' or 'auto'"
        raise SpecError("PyBulletWorld.renderer", expected, repr(renderer), nearest(renderer, RENDERERS))
