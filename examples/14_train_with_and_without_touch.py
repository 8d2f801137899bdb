"""A peg for a hole that no camera sees: the same demonstrations, once with and once without what the fingers feel.
Run: python examples/14_train_with_and_without_touch.py [demonstrations] [training steps] [test episodes]
With 300, 2000 and 100 it takes an hour on two cores and shows a difference; as it stands it only shows that it runs."""

import json
import sys

from perceive.cli import main

if __name__ == "__main__":
    episodes, steps, tests = (int(word) for word in (sys.argv[1:] + ["2", "4", "2"][len(sys.argv) - 1 :]))
    noise = [
        "noise.position_m=0.002",
        "noise.rotation_rad=0.02",
        "noise.burst_probability=0.3",
        "noise.burst_steps=1.5",
    ]
    main(["collect", "env=insert_peg", f"episodes={episodes}", "output=peg/demonstrations", *noise])
    success = {}
    for experiment in ("insert_peg", "insert_peg_vision"):
        run = f"peg/{experiment}"
        words = [f"experiment={experiment}", "data=peg/demonstrations", f"output={run}", f"train.steps={steps}"]
        main(["train", *words])
        play = ["env=insert_peg", f"episodes={tests}", f"env.max_steps={80 if steps > 4 else 8}", "films=1"]
        main(["evaluate", f"checkpoint={run}", *play, f"output={run}/evaluation"])
        with open(f"{run}/evaluation/result.json") as file:
            success[experiment] = json.load(file)["figures"]["success"]["value"]
    print("success:", ", ".join(f"{name} {100 * value:.0f} %" for name, value in success.items()))
    print("films: peg/*/evaluation/*.mp4")
