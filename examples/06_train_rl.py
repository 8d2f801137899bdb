"""Learn to reach by trial and error: stable-baselines3's SAC with hindsight, our trunk as its features extractor.

    python examples/06_train_rl.py [steps]

The goal is a token at its place in the robot's base frame, the joints are one at the tool. Hindsight replay replaces
a goal by a place that was reached: the token moves, and a failure becomes a success to learn from. With the default
few steps this only shows the road; 4,000 steps (some minutes) reach almost every goal.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial

from perceive.build import build
from perceive.cli.compose import compose_config
from policies.evaluation import evaluate
from policies.goals import GoalsAsSensors
from policies.rl import train_rl
from policies.rl_policy import RlPolicy
from policies.rl_settings import RlSettings
from sensors.observation import Observation


def goal_env(env: dict) -> GoalsAsSensors:
    """The environment with its goal as a sensor, for loops that know sensors only."""
    return GoalsAsSensors(build(env))


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    config = compose_config("train", ["algorithm=sac", "env=reach"])
    numbers = {name: value for name, value in config["rl"].items() if name != "_target_"}
    settings = RlSettings(**numbers | {"steps": steps, "learning_starts": min(steps // 2, 500), "tensorboard": False})

    env = goal_env(config["env"])
    values, info = env.reset(seed=0)
    print("what the model reads:", sorted(Observation.from_dict(values, info["now_s"]).streams))
    env.close()

    with tempfile.TemporaryDirectory() as folder:
        result = train_rl(
            "sac", partial(build, config["env"]), config["model"], settings, folder, progress=steps > 1000
        )
        print(result)
        seeds = range(1_000_000, 1_000_000 + (50 if steps > 1000 else 3))
        found = evaluate(partial(goal_env, config["env"]), partial(RlPolicy.load, folder), seeds)
        print(f"reached {found.successes} of {found.count} goals that it had not seen")
