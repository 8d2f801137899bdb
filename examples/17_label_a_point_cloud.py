"""A table of things before two cameras: a class for every point, and what simple geometry finds without learning.
Run: python examples/17_label_a_point_cloud.py [run folder of: perceive train experiment=points_segmentation]"""

import sys

import cv2
import numpy as np
import torch

from envs.cloud_scenes.tabletop import TabletopScenes
from perceive.cli.compose import compose_config
from perceive.loading import build_model
from perceive.metrics.segmentation import Segmentation, confusion
from perceive.points.files.cloud import from_arrays
from perceive.points.files.store import write_cloud
from perceive.points.preprocess.presets import tabletop
from perceive.viewing.cloud_board import Tile, cloud_tiles, point_cloud, processed_tiles, sheet
from perceive.viewing.cloud_colours import class_colours
from policies.clouds.dataset import CloudDataset
from policies.learned import trained_model

scenes = TabletopScenes(seed=99)
cloud = from_arrays(scenes.scene(0).arrays())
write_cloud("scene.npz", cloud)  # your own PLY, PCD, LAS, KITTI, ... is read in the same way
data = CloudDataset("scene.npz", needs=["semantic"])
batch, truth = data.batch([0])
plan = compose_config("train", ["experiment=points_segmentation"])["model"]
model = build_model(plan, data.sensor_spaces, data.history, None).eval()  # knows nothing yet
model = trained_model(sys.argv[1]) if len(sys.argv) > 1 else model
with torch.inference_mode():
    said = model(batch)["labels"]
guess = said.logits[0].argmax(-1).numpy()[: len(cloud)]
score = Segmentation(confusion(guess, truth.semantic[0].numpy()[: len(cloud)], len(cloud.classes)))
print(f"{len(cloud)} points, mean IoU {score.mean_iou:.2f}, right {100 * score.accuracy:.0f} %")

done = tabletop()(point_cloud(cloud))  # crop, voxels, outliers, normals, the table's plane, clusters
print(done.table())
things = len(np.unique(cloud.instance[cloud.instance >= 0]))
print(f"{done.cloud.cluster.max() + 1} clusters of {things} things")
tiles = [*cloud_tiles(cloud), Tile("guess", cloud.xyz_m, class_colours(guess, len(cloud.classes)))]
cv2.imwrite("labelled.png", sheet([*tiles, *processed_tiles(cloud, done)], 3, 300, 400)[..., ::-1])
