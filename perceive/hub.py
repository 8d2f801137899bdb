"""Saved models on the Hugging Face hub. Imports huggingface_hub only when it is used.

``huggingface_hub.ModelHubMixin`` is not used: importing it takes most of the half second that ``import perceive`` may
add, it looks for a config of its own kind in the constructor's arguments, and a mistyped local folder would end in one
of its untyped errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sensors.errors import DataError

SCHEME = "hf://"


def local_folder(source: str | Path, files: Sequence[str]) -> Path:
    """The folder itself, or where the files of ``hf://owner/name`` or ``hf://owner/name@revision`` were downloaded to.

    The hub is asked only for names with ``hf://``: a mistyped folder must not become a download.

    Raises:
        DataError: the hub has no such model or cannot be reached.
    """
    name = str(source)
    if not name.startswith(SCHEME):
        return Path(source)
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(SCHEME).partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # the library's own errors derive from these
        lines = str(error).strip().splitlines()
        raise DataError(
            name,
            "a model on the Hugging Face hub that can be reached",
            f"{type(error).__name__}: {lines[0] if lines else 'no details'}",
            "Check the name and the network, or download the folder elsewhere and give its path.",
        ) from error


def upload(folder: Path, repository: str, files: Sequence[str], private: bool) -> str:
    """Put the files of a folder into the model repository ``owner/name``, made if need be; returns its address.

    Raises:
        DataError: not logged in, not allowed, or not reachable.
    """
    from huggingface_hub import HfApi

    try:
        address = HfApi().create_repo(repository, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=address.repo_id, folder_path=folder, allow_patterns=list(files))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{SCHEME}{repository}", "a hub repository that may be written", str(error), "Run `hf auth login`."
        ) from error
    return str(address)
