"""What the processes that tests start and kill do."""

from pathlib import Path

import torch
import torchvision.transforms.v2  # noqa: F401 - takes longer to import than the work itself

from stages.embed.config import EmbedConfig
from stages.embed.extract import embed


def embed_folder(folder: str, backbone: str, root: str, shard_images: int) -> None:
    torch.set_num_threads(1)
    embed(EmbedConfig(dataset=f"folder:{folder}", backbone=backbone, data_root=Path(root)), shard_images)
