"""Files, whole or not at all: written beside their place and renamed, read with plain errors.

What is kept in safetensors (weights, operators) has a description in its header, in JSON, and in it
the SHA-256 of all that the file says: one changed bit is noticed. A file without one, of an earlier
version, is read all the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise

from npgd import checks

T = TypeVar("T")

TEMPORARY = (".npgd-", ".tmp")
"""How the name of a file begins and ends that is still being written. A killed process may leave
one behind; nothing reads it, and it may be deleted."""

LONGEST_DESCRIPTION = 2**24
"""In characters."""
DEEPEST_DESCRIPTION = 64
MOST_TENSORS = 10_000

NOT_GIVEN = object()
"""The checksum of a file that has none."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors calls the types that are kept."""

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


# --- writing -----------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: into a temporary file beside it, then rename."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files, each whole, and none where one cannot be written.

    All are written beside their places first, under names of their own that nobody can foresee,
    and renamed last; threads and processes that write to one path leave the content of one of them.
    Permissions are those of any new file. A link in a file's place is replaced, not followed.

    Raises:
        OSError: naming the path that cannot be written.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            with _naming(path):
                if path.is_dir() and not path.is_symlink():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                written[path] = _written_beside(path, content)
        for path, temporary in written.items():
            with _naming(path):
                os.replace(temporary, path)
        for folder in {path.parent for path in written}:
            _sync(folder)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _written_beside(path: Path, content: bytes) -> Path:
    """A new file in the folder of `path` with that content, safely on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = None
    while descriptor is None:
        temporary = path.with_name(secrets.token_hex(8).join(TEMPORARY))
        with contextlib.suppress(FileExistsError):
            # mkstemp would make a file for the owner alone; this leaves the mode to the umask.
            descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk too; not every system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError names `path`, whatever it happened to."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def described(tensors: Mapping[str, Any], holds: str, description: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file that holds `tensors` with a description in its header.

    Tensors that share memory are kept each for itself.

    Raises:
        TypeError: no dense tensors, or a description that JSON cannot hold.
        ValueError: a tensor with NaN or infinity, or too long or too deep a description.
    """
    kept = {}
    for key, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{key} must be a tensor to be kept, got {type(value).__name__}")
        if value.layout != torch.strided or value.is_meta or value.dtype not in DTYPES.values():
            raise TypeError(
                f"{key} must be a dense tensor of real numbers in memory to be kept, got"
                f" {value.dtype}, {value.layout} on {value.device}"
            )
        checks.finite(value, key)
        kept[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    plain_description = json.loads(as_json(description, f"the description of the {holds}"))
    plain_description["sha256"] = _digest(plain_description, kept)
    return serialise(kept, {holds: json.dumps(plain_description)})


def as_json(value: Any, name: str, indent: int | None = None) -> str:
    """`value` in JSON.

    Raises:
        TypeError: something in it that JSON does not know.
        ValueError: too long or too deep a value, or one that contains itself.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=indent is None)
        text.encode()
    except TypeError as error:
        raise TypeError(f"{name} must be plain numbers, words and lists, got {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be values that JSON can hold, got {error}") from error
    _bounded(text, name)
    if _deep(json.loads(text)):
        raise ValueError(f"{name} must be nested at most {DEEPEST_DESCRIPTION} deep, got more")
    return text


def safetensors_path(path: str | os.PathLike[str]) -> Path:
    """`path`; TypeError if it is none, ValueError unless it ends in .safetensors."""
    path = a_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {shown(path)}")
    return path


def a_path(path: object, name: str = "path") -> Path:
    """`path` as a Path; TypeError if it is none, ValueError if no file can have that name."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} must be a path, got {checks.shown(path)}")
    try:
        if os.fspath(path) and b"\0" not in os.fsencode(path):
            return Path(path)
    except UnicodeEncodeError:
        pass
    raise ValueError(f"{name} must be a path that a file can have, got {str(path)!r}")


# --- reading -----------------------------------------------------------------------------------


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; also False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_described(
    path: Path,
    holds: str,
    plan: Callable[[dict[str, Any], dict[str, torch.Tensor]], T],
) -> tuple[T, dict[str, torch.Tensor]]:
    """What `plan` makes of the description in a file's header, and the file's tensors.

    Args:
        path: of a safetensors file.
        holds: what it is to hold.
        plan: takes the description and the tensors' outlines (on the meta device, which have a
            shape and a dtype and no memory), and raises what says how they do not fit. No tensor is
            read before it has agreed.

    Raises:
        ValueError: a file that cannot be read, that was altered, or that holds something else.
    """
    with contextlib.ExitStack() as stack:
        with _readable(path):
            file = stack.enter_context(safe_open(path, "pt"))
            metadata = file.metadata() or {}
            keys = list(file.keys())
        description = _description(path, holds, metadata)
        digest = description.pop("sha256") if "sha256" in description else NOT_GIVEN
        with _readable(path):
            if len(keys) > MOST_TENSORS:
                raise ValueError(f"{len(keys)} tensors, more than {MOST_TENSORS}")
            outlines = {key: _outline(file.get_slice(key), key) for key in keys}
        with holding(path, holds):
            planned = plan(description, outlines)
        with _readable(path):
            # Copies: what a file is mapped into would change, or vanish, with the file.
            tensors = {key: file.get_tensor(key).clone() for key in keys}
    if digest is not NOT_GIVEN and digest != _digest(description, tensors):
        raise ValueError(
            f"{shown(path)} must be as it was written, got contents of another checksum"
        )
    with holding(path, holds):
        for key, value in tensors.items():
            checks.finite(value, key)
    return planned, tensors


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever another library raises over a file becomes one sentence that names the file."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{shown(path)} must be a safetensors file, got {sentence(error)}"
        ) from error


@contextlib.contextmanager
def holding(path: Path, holds: str) -> Iterator[None]:
    """What goes wrong with a file's contents becomes one sentence that names the file."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{shown(path)} must hold the {holds} that its header describes: {sentence(error)}"
        ) from error


def _description(path: Path, holds: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    if holds not in metadata:
        article = "an" if holds[0] in "aeio" else "a"
        raise ValueError(
            f"{shown(path)} must hold {article} {holds}, got tensors with no {holds!r} in their"
            " header"
        )
    try:
        _bounded(metadata[holds], "the description")
        description = json.loads(metadata[holds])
        if _deep(description):
            raise ValueError(f"values nested more than {DEEPEST_DESCRIPTION} deep")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{shown(path)} must describe its {holds} in JSON, got {sentence(error)}"
        ) from error
    if not isinstance(description, dict):
        raise ValueError(
            f"{shown(path)} must describe its {holds} by names and values, got"
            f" {type(description).__name__}"
        )
    return description


def _outline(part: Any, key: str) -> torch.Tensor:
    kind = part.get_dtype()
    if kind not in DTYPES:
        raise ValueError(f"{kind} in {checks.shown(key)}")
    return torch.empty(part.get_shape(), dtype=DTYPES[kind], device="meta")


def entry(description: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """What a description says under a name; raises if it is not there, or of another kind."""
    if name not in description:
        raise ValueError(f"{name} must be in the header, got {checks.shown(sorted(description))}")
    value = description[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be a {kind.__name__}, got {checks.shown(value)}")
    return value


def require_fit(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError unless tensors have the names, the shapes and the kinds that are expected.

    Floating-point tensors may be of any precision, others must be of the type expected.
    """
    for these, those, words in ((expected, found, "be there"), (found, expected, "not be there")):
        for key in these:
            if key not in those:
                raise ValueError(
                    f"tensor {checks.shown(key)} must {words}, got {len(found)} tensors"
                )
    for key, tensor in expected.items():
        got = found[key]
        if got.shape != tensor.shape:
            raise ValueError(f"{key} must have shape {tuple(tensor.shape)}, got {tuple(got.shape)}")
        kinds = FLOATING if tensor.is_floating_point() else (tensor.dtype,)
        if got.dtype not in kinds:
            wanted = "floating point" if tensor.is_floating_point() else f"{tensor.dtype}"
            raise ValueError(f"{key} must be {wanted}, got {got.dtype}")


def destination(
    dtype: torch.dtype | None, device: str | torch.device
) -> tuple[torch.dtype | None, torch.device]:
    """A floating-point type (or None) and a device that is there, to load something in and to.

    Raises:
        TypeError, ValueError: naming the one that does not fit.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(
            f"dtype must be a torch dtype such as torch.float32, got {checks.shown(dtype)}"
        )
    if dtype is not None and dtype not in FLOATING:
        names = ", ".join(str(known) for known in FLOATING)
        raise ValueError(f"dtype must be one of {names}, got {dtype}")
    if isinstance(device, bool) or not isinstance(device, str | torch.device | int):
        raise TypeError(
            f"device must be a device such as 'cpu' or 'cuda', got {checks.shown(device)}"
        )
    try:
        there = torch.device(device)
        if there.type == "meta":
            raise ValueError("it holds no numbers")
        torch.empty(1, dtype=dtype, device=there)
    except Exception as error:  # each kind of device fails in its own way
        raise ValueError(
            f"device must be one that is there, such as 'cpu', got {checks.shown(str(device))}:"
            f" {sentence(error)}"
        ) from error
    return dtype, there


def _digest(description: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over a description and over the names, types, shapes and contents of tensors."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _bounded(text: str, name: str) -> None:
    if len(text) > LONGEST_DESCRIPTION:
        raise ValueError(
            f"{name} must have at most {LONGEST_DESCRIPTION} characters, got {len(text)}"
        )


def _deep(value: object) -> bool:
    """Whether lists and dicts are nested more than DEEPEST_DESCRIPTION deep."""
    level = [value]
    for _ in range(DEEPEST_DESCRIPTION):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True


# --- words and numbers -------------------------------------------------------------------------


def sentence(error: BaseException) -> str:
    """The first line of what an error says, cut where it is long; its type if it says nothing.

    Of TorchScript's, which begin with a traceback, the line that tells the cause.
    """
    words = str(error).strip() or type(error).__name__
    if "in the TorchScript interpreter" in words.splitlines()[0]:
        words = words.splitlines()[-1].partition("Error: ")[2] or words
    line = checks.printable(words.splitlines()[0])
    if isinstance(error, KeyError):
        line = f"{line} is missing"
    return line if len(line) <= 400 else f"{line[:399]}…"


def shown(path: Path) -> str:
    """A path for a message: on one line, and without codes that a terminal would obey."""
    return checks.printable(str(path))


def plain(value: Any) -> Any:
    """Numbers, lists and dicts for JSON; it has neither NaN nor infinity, and both become None."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
