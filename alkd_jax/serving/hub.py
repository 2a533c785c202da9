"""Shipped students on the Hugging Face Hub, by its own client, `huggingface_hub`."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from alkd_jax.errors import import_extra, reading
from alkd_jax.serving import manifest, model_card


def upload(folder: pathlib.Path, repo_id: str, *, version: str, revision: str | None, private: bool) -> str:
    """Uploads the files of a shipped student, and makes the repository if there is none.

    Args:
        folder: of the student.
        repo_id: "OWNER/NAME".
        version: of the student, the digest of its config.
        revision: branch to upload to; by default the main one.
        private: whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        ValueError: the folder was changed since the student was loaded, or the hub refused the upload.
    """
    huggingface_hub = import_extra("huggingface_hub")
    config, digest = manifest.read_config(folder)
    if digest != version:
        raise ValueError(f"{folder / manifest.CONFIG}: was changed since it was loaded; load the student again")
    for name in config.files:
        manifest.read_checked(folder, config, name, max_bytes=(folder / name).stat().st_size)
    names = [manifest.CONFIG, model_card.FILE, *config.files]
    with reading(repo_id, expected="a repository on the hub that you may write to"):
        api = huggingface_hub.HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            revision=revision,
            allow_patterns=names,
            commit_message=f"Upload the student {version[:12]}",
        )
    return str(commit)


@contextlib.contextmanager
def downloaded(repo_id: str, *, revision: str | None, cache: str | os.PathLike[str] | None) -> Iterator[pathlib.Path]:
    """Downloads a shipped student into the client's cache, and yields a folder of its files while a block runs.

    The cache holds links, which a shipped student may not have, so that the files are copied out of it. They are
    untrusted: only those that a student has are downloaded.

    Args:
        repo_id: "OWNER/NAME".
        revision: branch, tag or commit; by default the main branch.
        cache: folder of the cache; by default the client's own.

    Raises:
        ValueError: there is no such repository or revision, or it cannot be reached.
    """
    huggingface_hub = import_extra("huggingface_hub")
    names = [manifest.CONFIG, manifest.WEIGHTS, manifest.ITEMS]
    with reading(repo_id, expected="a shipped student on the hub"):
        snapshot = pathlib.Path(
            huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=names, cache_dir=cache)
        )
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file in names:
            if (snapshot / file).is_file():
                shutil.copyfile(snapshot / file, folder / file)
        yield folder
