"""The robot is told a name, finds that object by its mesh in one RGB-D picture, and puts it in the tray; no training.
Run: python examples/21_pick_by_pose.py [seed]"""

import sys

from envs.pose_scenes.library import NUMBERS
from perceive.build import build
from perceive.cli.compose import compose_config
from perceive.cli.scenes_poses import object_model
from perceive.pose.estimators.templates import TemplateEstimator
from policies.pose_pick import PosePick
from policies.rollout import rollout

env = build(compose_config("collect", ["env=pick_named"])["env"])
models = [object_model(shape, NUMBERS[name]) for name, shape in env.task.shapes.items()]
estimator = TemplateEstimator({model.number: model for model in models})  # renders its templates when first asked
policy = PosePick(env.action_spec, estimator, models, target_m=(0.5, 0.24, 0.004))
result = rollout(env, policy, seed=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
print(f"{env.task.instruction}: {'done' if result.success else policy.verdict.value} in {result.duration_s:.1f} s")
for look in policy.looks:
    found = "nothing" if look.base_from_object is None else look.base_from_object[:3, 3].round(3).tolist()
    print(
        f"looked for the {look.name} in {look.estimate_s:.1f} CPU s: {found} m, {look.grasps} grasps, {look.score:.2f}"
    )
env.close()
