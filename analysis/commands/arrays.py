"""Arrays that other programs wrote: NumPy's .npy and .npz, MATLAB's .mat, HDF5's .h5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npgd import checks
from npgd.files import is_file, sentence, shown

SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5")
MOST = 2**31
"""Most numbers in an array that is read."""


def read_array(path: Path, entry: str | None = None, usual: str = "y") -> np.ndarray[Any, Any]:
    """One array of a file, real or complex, in double precision unless it has another.

    Args:
        path: of a .npy, .npz, .mat or .h5 file. Python objects in it are not read. Files of
            MATLAB's version 7.3 and HDF5 need `h5py`.
        entry: the array's name; by default `usual` where there is one, else the only one.
        usual: the name that is tried first.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: `h5py` is needed and not installed.
        ValueError: a file of another kind, one that cannot be read, or several arrays without one
            of the usual name.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a file must end in {', '.join(SUFFIXES)}, got {shown(path)}")
    if not is_file(path):
        raise FileNotFoundError(f"a file must be there, got {shown(path)}")
    found = _arrays(path)
    if found is not None:
        name = _chosen(list(found), path, entry, usual)
        array = found[name]() if name is not None else next(iter(found.values()))()
        return _numbers(array, path)
    raise ValueError(f"{shown(path)} must hold an array, got none")


def _arrays(path: Path) -> dict[str, Callable[[], Any]] | None:
    """A file's arrays by name, each read when it is asked for; a .npy file's has the name ""."""
    try:
        match path.suffix.lower():
            case ".npy":
                array = np.load(path, allow_pickle=False)
                return {"": lambda: array}
            case ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    return {name: _kept(archive[name]) for name in archive.files} or None
            case ".mat":
                return _of_matlab(path) or None
            case _:
                return _of_hdf5(path) or None
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # each library has its own
        raise ValueError(
            f"{shown(path)} must be a whole {path.suffix} file, got {sentence(error)}"
        ) from error


def _kept(array: Any) -> Callable[[], Any]:
    return lambda: array


def _of_matlab(path: Path) -> dict[str, Callable[[], Any]]:
    from scipy import io

    try:
        found = io.loadmat(path)
    except NotImplementedError:  # version 7.3 is HDF5, and has its axes the other way round
        return {name: _kept(np.transpose(array())) for name, array in _of_hdf5(path).items()}
    return {
        name: _kept(value.toarray() if hasattr(value, "toarray") else value)
        for name, value in found.items()
        if not name.startswith("__")
    }


def _of_hdf5(path: Path) -> dict[str, Callable[[], Any]]:
    try:
        import h5py
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the package h5py must be installed to read {shown(path)} (pip install 'npgd[files]')",
            name="h5py",
        ) from error
    found: dict[str, Callable[[], Any]] = {}
    with h5py.File(path, "r") as file:

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.size is not None and item.size <= MOST:
                found[name] = _kept(item[()])

        file.visititems(take)
    return found


def _chosen(names: list[str], path: Path, entry: str | None, usual: str) -> str | None:
    """The array to take; None for that of a file of one without a name."""
    if names == [""]:
        if entry is not None:
            raise ValueError(f"a .npy file has one array without a name, got the name {entry!r}")
        return None
    wanted = usual if entry is None else entry
    if wanted in names:
        return wanted
    if entry is None and len(names) == 1:
        return names[0]
    choose = "; --entry names another" if entry is None and usual == "y" else ""
    raise ValueError(
        f"{shown(path)} must hold an array named {wanted!r}, got {checks.shown(names)}{choose}"
    )


def _numbers(array: Any, path: Path) -> np.ndarray[Any, Any]:
    """An array of real or complex numbers, whatever form they were kept in."""
    array = np.asarray(array)
    if array.dtype.names == ("real", "imag"):  # how MATLAB keeps complex numbers in HDF5
        array = array["real"] + 1j * array["imag"]
    if array.dtype.kind not in "fciub" or array.ndim == 0 or not 1 <= array.size <= MOST:
        raise ValueError(
            f"{shown(path)} must hold an array of numbers, got {array.dtype} of shape {array.shape}"
        )
    numbers: np.ndarray[Any, Any] = array.astype(np.float64) if array.dtype.kind in "iub" else array
    return numbers
