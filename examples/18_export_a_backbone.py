"""A Point Transformer V3 as an ONNX file that reads clouds of any size; needs: pip install 'perceive[export]'.
Run: python examples/18_export_a_backbone.py [backbone.onnx]"""

import sys

import torch

from perceive.export.onnx_points import OnnxPTv3, export_ptv3
from perceive.points.ptv3.levels import grid_cloud
from perceive.points.ptv3.network import PointTransformerV3

if __name__ == "__main__":
    torch.manual_seed(0)
    network = PointTransformerV3(
        in_width=3,
        encoder_blocks=(1, 1, 1), encoder_width=(16, 32, 64), encoder_heads=(1, 2, 4),
        decoder_blocks=(1, 1), decoder_width=(16, 32), decoder_heads=(1, 2),
        patch=64,
    ).eval()  # fmt: skip
    path = export_ptv3(network, sys.argv[1] if len(sys.argv) > 1 else "backbone.onnx")
    session = OnnxPTv3(path, network)  # the network makes the index maps; weights are those of the file

    gap = 0.0
    for points in (200, 5000):
        xyz_m = torch.rand(1, points, 3)
        cloud, _ = grid_cloud(xyz_m, xyz_m, edge_m=0.05)  # mean of the points in each cell of 5 cm
        with torch.no_grad():
            expected = network(cloud).features.numpy()
        found = session(cloud)  # float32 [cells, 16]
        gap = max(gap, float(abs(found - expected).max()))
        print(f"{points} points in {len(found)} cells: {found.shape[1]} features each")
    print(f"{path}, {path.stat().st_size / 1e6:.1f} MB; greatest difference from torch {gap:.1g}")
