"""What an Ouster LiDAR says of itself: old and new metadata, and everything that may be wrong with them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.errors import SensorError
from sensors.ouster_format import OusterMetadata
from tests.sensors.packet_scene import OusterModel


def test_old_and_new_metadata_say_the_same() -> None:
    new = OusterModel(profile="LEGACY").metadata()
    old = {
        **new["sensor_info"],
        **new["lidar_intrinsics"],
        "beam_altitude_angles": new["beam_intrinsics"]["beam_altitude_angles"],
        "beam_azimuth_angles": new["beam_intrinsics"]["beam_azimuth_angles"],
        "lidar_origin_to_beam_origin_mm": new["beam_intrinsics"]["lidar_origin_to_beam_origin_mm"],
        "data_format": {key: value for key, value in new["lidar_data_format"].items() if "udp" not in key},
    }
    for one, other in zip(
        OusterMetadata.parse(json.dumps(old).encode(), "old", of_this_start=False).rays(),
        OusterMetadata.parse(json.dumps(new).encode(), "new", of_this_start=False).rays(),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("beam_intrinsics", "beam_altitude_angles", None, "KeyError: 'beam_altitude_angles'"),
        ("beam_intrinsics", "beam_azimuth_angles", [1.0, 2.0], "16 rows"),
        ("beam_intrinsics", "beam_azimuth_angles", [float("nan")] * 16, "not finite"),
        ("lidar_intrinsics", "lidar_to_sensor_transform", [1, 2, 3], "reshape"),
        ("lidar_data_format", "columns_per_packet", 0, "0/512"),
        ("lidar_data_format", "column_window", [0, 512], "column_window 0..512"),
        ("lidar_data_format", "udp_profile_lidar", "FUSA_RNG15", r"one of \['LEGACY'.*got FUSA_RNG15"),
        ("sensor_info", "prod_sn", "none", "invalid literal"),
    ],
)
def test_wrong_metadata_are_said(section: str, key: str, value: Any, says: str) -> None:
    data = OusterModel().metadata()
    if value is None:
        del data[section][key]
    else:
        data[section][key] = value
    with pytest.raises(SensorError, match=says):
        OusterMetadata.parse(json.dumps(data).encode(), "test", of_this_start=True)


@given(
    st.one_of(
        st.binary(max_size=40), st.recursive(st.none() | st.integers(), st.lists).map(lambda x: json.dumps(x).encode())
    )
)
def test_any_other_answer_is_said(text: bytes) -> None:
    with pytest.raises(SensorError, match="the JSON of /api/v1/sensor/metadata"):
        OusterMetadata.parse(text, "test", of_this_start=True)
