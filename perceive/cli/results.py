"""perceive results: RESULTS.md from results/*.json."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perceive.results_page import render_results_markdown


def main(arguments: Sequence[str]) -> int:
    """Write the page; with ``--check``, only say whether it is up to date (status 1 if not)."""
    parser = argparse.ArgumentParser(prog="perceive results", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("results"), help="where the result files are")
    parser.add_argument("--page", type=Path, default=Path("RESULTS.md"), help="the page to write")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the page is out of date")
    flags = parser.parse_args(list(arguments))
    text = render_results_markdown(flags.folder)
    if flags.check:
        current = flags.page.is_file() and flags.page.read_text() == text
        print(f"{flags.page} is {'up to date' if current else 'out of date: run `perceive results`'}")
        return 0 if current else 1
    beside = flags.page.with_name(f".{flags.page.name}.tmp")
    beside.write_text(text)
    beside.replace(flags.page)
    print(f"written: {flags.page}")
    return 0
