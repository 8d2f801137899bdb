"""perceive view: an episode file, clouds or a live environment, as a film, a sheet of pictures, or in Rerun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceive.cli.app import App
from perceive.cli.view_clouds import view_clouds
from perceive.cli.workers import open_env
from perceive.viewing.film import write_mp4, write_sheet
from perceive.viewing.rerun_log import show_in_rerun
from perceive.viewing.storyboard import Storyboard, grid_steps
from policies.episode_file import Episode
from sensors.errors import SpecError
from sensors.observation import Observation


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "view",
        "Show an episode, point clouds, or the scripted expert at work: as mp4, sheet of pictures (png), or in Rerun.",
        (
            "perceive view episode=runs/lift/episodes/episode_000003.h5",
            "perceive view env=push seed=7 to=png",
            "perceive view env=lift to=rerun",
            "perceive view cloud=scan.ply points=tabletop to=png",
            "perceive view cloud=KITTI points=lidar to=rrd moments=20",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Show as the config says and print where it is.

    Raises:
        SpecError: an episode and a cloud at once, or preprocessing without a cloud.
    """
    if config["cloud"] is not None and config["episode"] is None:
        print(f"shown: {view_clouds(config)}")
        return
    if config["cloud"] is not None or config["points"] is not None:
        got = "both" if config["cloud"] is not None else "points= without cloud="
        raise SpecError("perceive view", "episode=, or cloud= with points= if wanted", got, "Leave one out.")
    if config["episode"] is not None:
        name = Path(config["episode"]).stem
        observations = read_episode(config["episode"], config["steps"])
    else:
        name = f"{config['env']['task']['_target_'].rpartition('.')[2].lower()}_{config['seed']}"
        observations = play_expert(config)
    print(f"shown: {show(observations, config['to'], Path(config['output']) / name, config['moments'])}")


def show(observations: Sequence[Observation], to: str, stem: Path, moments: int = 9) -> str:
    """Show observations of one episode.

    Args:
        observations: in order of time.
        to: mp4, png, rrd or rerun.
        stem: path of the file without its ending.
        moments: pictures on a sheet.

    Returns:
        Where it is shown.

    Raises:
        SensorError: Rerun is asked for and not installed.
    """
    if to in ("rrd", "rerun"):
        file = stem.with_name(f"{stem.name}.rrd") if to == "rrd" else None
        return show_in_rerun(observations, stem.name, file)
    board = Storyboard(observations)
    if to == "mp4":
        return str(write_mp4(stem.with_name(f"{stem.name}.mp4"), board, _rate_hz(observations)))
    steps = grid_steps(len(board), moments)
    labels = [f"{observations[step].now_s:.2f} s" for step in steps]
    return str(write_sheet(stem.with_name(f"{stem.name}.png"), [board.frame(step) for step in steps], labels))


def read_episode(path: str | Path, most: int) -> list[Observation]:
    """The first ``most`` observations of an episode file."""
    episode = Episode(path)
    return [episode.observation(row) for row in range(min(len(episode), most))]


def play_expert(config: Mapping[str, Any]) -> list[Observation]:
    """What the sensors see while the expert acts."""
    env = open_env(config)
    try:
        values, info = env.reset(seed=config["seed"])
        expert = env.expert()
        seen = [Observation.from_dict(values, info["now_s"])]
        over = False
        while not over and len(seen) < config["steps"]:
            values, _, terminated, truncated, info = env.step(expert.act().values)
            seen.append(Observation.from_dict(values, info["now_s"]))
            over = terminated or truncated
        return seen
    finally:
        env.close()


def _rate_hz(observations: Sequence[Observation]) -> float:
    span_s = observations[-1].now_s - observations[0].now_s
    return (len(observations) - 1) / span_s if span_s > 0 else 12.0
