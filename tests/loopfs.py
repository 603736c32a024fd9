"""An ext4 file system in a file: what a power cut leaves of it, and how it behaves when it is full. Needs root."""
import ctypes
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


_CLONE_NEWNS = 0x20000


@cache
def _private_mounts() -> None:
    """From here on, mounts of this thread and what it starts are its own: they are gone with it, even by kill -9."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")
    _run("mount", "--make-rprivate", "/")


def _run(*command: str) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, env=os.environ | {"PATH": PATH})


class LoopFs:
    """A mounted image. With `commit=300` the kernel writes back late, so what was not synced is lost when the power is cut."""

    _mounted: list["LoopFs"] = []

    def __init__(self, folder: Path, mib: int = 256, image: Path | None = None):
        _private_mounts()
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.image, self.path = self.folder / "disk.img", self.folder / "mnt"
        self.path.mkdir(exist_ok=True)
        if image is None:
            with open(self.image, "wb") as file:
                file.truncate(mib << 20)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        else:
            self.image = image
        _run("mount", "-o", "loop,commit=300", self.image, self.path)
        LoopFs._mounted.append(self)

    def power_cut(self, folder: Path) -> "LoopFs":
        """What a machine finds that starts after its power was cut now: the image as it is on disk, mounted elsewhere.

        Whoever writes to this file system must have been killed. The copy is made before unmounting, which would
        write everything back; the journal is replayed by the mount of the copy.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / "disk.img"
        _run("cp", "--sparse=always", self.image, copy)
        return LoopFs(folder, image=copy)

    def free_mib(self) -> float:
        return shutil.disk_usage(self.path).free / (1 << 20)

    def close(self) -> None:
        """Unmounts and removes the image; lazily when something still holds it."""
        if self in LoopFs._mounted:
            LoopFs._mounted.remove(self)
            try:
                _run("umount", self.path)
            except subprocess.CalledProcessError:
                _run("umount", "-l", self.path)
        self.image.unlink(missing_ok=True)
        if self.path.exists() and not os.path.ismount(self.path):
            self.path.rmdir()

    def __enter__(self) -> "LoopFs":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def close_all() -> None:
    """Unmounts what an interrupted run has left."""
    for mounted in LoopFs._mounted[:]:
        mounted.close()
