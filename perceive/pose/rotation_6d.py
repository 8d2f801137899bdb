"""Six numbers for a rotation, in both conventions that are in use, each by its name (Zhou et al., CVPR 2019).

Two of the matrix's **columns** or two of its **rows** are written one after the other. Networks of the first kind
(GDR-Net, and everything else in this project) and of the second (pytorch3d) read each other's outputs as the inverse
rotation, without any error; so nothing here is called just "rotation 6d".
"""

from __future__ import annotations

from torch import Tensor

from perceive.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix


def matrix_to_columns_6d(rotation: Tensor) -> Tensor:
    """The first two columns [..., 6] of rotation matrices [..., 3, 3]; the project's own convention."""
    return matrix_to_rotation_6d(rotation)


def columns_6d_to_matrix(columns_6d: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] whose first two columns are nearest to [..., 6], by Gram-Schmidt."""
    return rotation_6d_to_matrix(columns_6d)


def matrix_to_rows_6d(rotation: Tensor) -> Tensor:
    """The first two rows [..., 6] of rotation matrices [..., 3, 3]; pytorch3d's convention."""
    return matrix_to_rotation_6d(rotation.transpose(-1, -2))


def rows_6d_to_matrix(rows_6d: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] whose first two rows are nearest to [..., 6], by Gram-Schmidt."""
    return rotation_6d_to_matrix(rows_6d).transpose(-1, -2)
