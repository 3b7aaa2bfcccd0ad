"""Comparing folders."""

from pathlib import Path


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file, without lock files: they hold nothing and are never removed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".lock")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
