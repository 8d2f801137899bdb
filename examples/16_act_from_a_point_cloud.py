"""A policy that sees nothing but a point cloud: collect, train, evaluate, and look at what it was shown.
Run: python examples/16_act_from_a_point_cloud.py [demonstrations] [training steps] [test episodes]
With 300, 2000 and 100 it takes an hour on a core and lifts boxes; as it stands it only shows that it runs."""

import sys

import matplotlib.pyplot as plt

from perceive.cli import main
from policies.episode_file import Episode
from policies.episodes import list_episodes

if __name__ == "__main__":
    episodes, steps, tests = (int(word) for word in (sys.argv[1:] + ["1", "2", "1"][len(sys.argv) - 1 :]))
    play = ["env=lift", "rig=lift_cloud"]
    main(["collect", *play, f"episodes={episodes}", "output=cloud/demonstrations"])

    seen = Episode(list_episodes("cloud/demonstrations")[0]).observation(0).streams["cloud"].data
    count = int(seen["count"][0, 0])
    xyz_m, rgb = seen["xyz_m"][0, :count], seen["rgb"][0, :count]
    picture = plt.figure().add_subplot(projection="3d")
    picture.scatter(*xyz_m.T, c=rgb / 255, s=4)  # the box, and of the arm what the two cameras see
    picture.set_aspect("equal")
    plt.savefig("cloud/seen.png")
    print(f"the first cloud: {count} points, {xyz_m.min(0)} to {xyz_m.max(0)} m; cloud/seen.png")

    words = ["experiment=lift_cloud", "data=cloud/demonstrations", "output=cloud/run", f"train.steps={steps}"]
    main(["train", *words])
    short = f"env.max_steps={60 if steps > 2 else 6}"
    main(["evaluate", "checkpoint=cloud/run", *play, short, f"episodes={tests}", "output=cloud/evaluation"])
