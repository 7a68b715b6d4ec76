"""The one door to model files: safetensors and JSON judged by content, folders whole or absent."""

from __future__ import annotations

from sfumato.files.atomic import clean_temporaries, free_space
from sfumato.files.checkpoints import Checkpoint, Checkpoints
from sfumato.files.folder import inside, read_sharded
from sfumato.files.json_file import read_json, write_json
from sfumato.files.lock import lock
from sfumato.files.manifest import verify_folder, write_folder
from sfumato.files.tensors import read_tensors, write_tensors

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "clean_temporaries",
    "free_space",
    "inside",
    "lock",
    "read_json",
    "read_sharded",
    "read_tensors",
    "verify_folder",
    "write_folder",
    "write_json",
    "write_tensors",
]
