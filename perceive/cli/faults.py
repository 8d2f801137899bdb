"""Faults in a config: ``faults: {front: {_target_: sensors.faults.Freeze}}`` goes around sensors of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from sensors.errors import WiringError, nearest


def with_faults(env: Mapping[str, Any], faults: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's config with faults around some of its sensors.

    Args:
        env: config with ``rig.sensors``.
        faults: sensor -> config of a fault, or several of them in a list.

    Raises:
        WiringError: a name that is not a sensor of the rig.
    """
    out = deepcopy(dict(env))
    sensors = out["rig"]["sensors"]
    for name, given in faults.items():
        if name not in sensors:
            raise WiringError("faults", f"sensors of the rig {sorted(sensors)}", f"'{name}'", nearest(name, sensors))
        listed = list(given) if isinstance(given, (list, tuple)) else [given]
        sensors[name] = {"_target_": "sensors.faulty.Faulty", "sensor": sensors[name], "faults": listed}
    return out
