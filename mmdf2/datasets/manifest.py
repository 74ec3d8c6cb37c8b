"""A store's manifest: what the folder holds, and the refusal of a folder that is not a whole store of this version."""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = 'manifest.json'
PROBLEMS = 'problems.jsonl'
FORMAT = 'mmdf2-store'
VERSION = 1


class StoreError(RuntimeError):
    """A store that is missing, damaged, stale or not a store; the message says what to run."""


def remedy(folder) -> str:
    """The command that makes the store in ``folder``, whose place by default is ``ROOT/<split>.store``."""
    folder = Path(folder)
    split = folder.name.removesuffix('.store')
    if folder.name != split and (folder.parent / split).is_dir():
        return f'run: python tools/prepare_deepfashion2.py {folder.parent} --split {split}'
    return f'run: python tools/prepare_deepfashion2.py ROOT --split SPLIT --store {folder}'


def write_manifest(folder, contents: dict) -> None:
    """Writes ``manifest.json``, the last file of a store to be written.

    Args:
        folder: The store's folder.
        contents: JSON object; format and version are added.
    """
    path = Path(folder, MANIFEST)
    beside = path.with_suffix('.tmp')
    beside.write_text(json.dumps({'format': FORMAT, 'version': VERSION, **contents}, indent=1) + '\n')
    os.replace(beside, path)


def read_manifest(folder) -> dict:
    """Reads and checks ``manifest.json``.

    Raises:
        StoreError: No such folder, no manifest in it, not JSON, not a store's, or of another version.
    """
    path = Path(folder, MANIFEST)
    try:
        manifest = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        found = 'has no manifest.json, so it is no store' if Path(folder).exists() else 'does not exist'
        raise StoreError(f'store {folder} {found}; {remedy(folder)}') from None
    except (ValueError, OSError) as error:
        raise StoreError(f'{path} cannot be read ({error}); {remedy(folder)} --force') from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        raise StoreError(f"{path} is not an mmdf2 store's manifest; move {folder} away, then {remedy(folder)}")
    if manifest.get('version') != VERSION:
        raise StoreError(
            f'store {folder} has version {manifest.get("version")!r}, this mmdf2 reads {VERSION}; '
            f'{remedy(folder)} --force'
        )
    if not all(isinstance(manifest.get(key), dict) for key in ('columns', 'source', 'problems')):
        raise StoreError(f'{path} is incomplete; {remedy(folder)} --force')
    return manifest


def is_store(folder) -> bool:
    """Whether a folder is a store, be it damaged or of another version: one that may be replaced."""
    try:
        return f'"format": "{FORMAT}"' in Path(folder, MANIFEST).read_text(errors='replace')
    except OSError:
        return False


def file_digest(path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
