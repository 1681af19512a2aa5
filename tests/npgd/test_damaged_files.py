"""Damaged files of weights and operators: one ValueError that names the file, or what was saved.

Every damage is drawn from a seed: bits, bytes, what the header says, what the tensors hold. Files
carry a checksum; the same files without one, as earlier versions wrote them, are damaged too, so
that each check stands on its own.
"""

import json
import random
import resource
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise

import npgd
from analysis.testing import normal
from npgd.denoisers import save_network
from npgd.networks import DenoisingNetwork, ProximalNetwork, build

S = (1, 4, 4)


def made_prior(path, *, image_size=28, principal=False, corrections=0):
    sizes = {"latent_dim": 3, "width": 4, "image_size": image_size}
    architecture = {
        "generator": {"name": "DCGANGenerator", "settings": sizes},
        "encoder": {"name": "Encoder", "settings": {**sizes, "hidden": 8, "principal": principal}},
    }
    if corrections:
        settings = {"latent_dim": 3, "hidden": 5, "reach": 0.6}
        architecture["corrector"] = {"name": "Corrector", "settings": settings}
    networks = {part: build(**spec_of(spec)) for part, spec in architecture.items()}
    prior = npgd.GenerativePrior(
        networks["generator"],
        networks["encoder"],
        3,
        (1, image_size, image_size),
        "tiny",
        networks.get("corrector"),
        corrections,
    )
    npgd.save_prior(prior, path, architecture)


def spec_of(spec):
    return {"architecture": spec["name"], "settings": spec["settings"]}


def operator(make):
    return lambda path: npgd.save_operator(make(), path, {"method": "by hand", "numbers": [1, 2.5]})


KINDS = {
    "prior": (made_prior, npgd.load_prior),
    "prior, corrected": (lambda path: made_prior(path, corrections=2), npgd.load_prior),
    "prior, principal": (lambda path: made_prior(path, principal=True), npgd.load_prior),
    "denoiser": (
        lambda path: save_network(DenoisingNetwork(2), path, {"width": 2}),
        npgd.load_denoiser,
    ),
    "onenet": (
        lambda path: save_network(ProximalNetwork(2), path, {"width": 2}),
        npgd.load_onenet,
    ),
    "matrix": (operator(lambda: npgd.Gaussian(S, 5, seed=2)), npgd.load_operator),
    "inpainting": (operator(lambda: npgd.Inpainting(S, hole=2)), npgd.load_operator),
    "super-resolution": (operator(lambda: npgd.SuperResolution(S, 2)), npgd.load_operator),
    "dct": (operator(lambda: npgd.SubsampledDCT(S, 7, seed=1)), npgd.load_operator),
    "whitened matrix": (operator(lambda: npgd.whiten(npgd.Gaussian(S, 5))), npgd.load_operator),
    "whitened mask": (
        operator(lambda: npgd.whiten(npgd.Inpainting(S, hole=2))),
        npgd.load_operator,
    ),
}


# --- files in parts ----------------------------------------------------------------------------


def opened(content):
    """The header of a safetensors file, as JSON, and the bytes after it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def closed(header, rest):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def described(content):
    """What the file holds, its description and its tensors."""
    metadata = opened(content)[0]["__metadata__"]
    (holds,) = metadata
    return holds, json.loads(metadata[holds]), parse(content)


def written(holds, description, tensors):
    return serialise(tensors, {holds: json.dumps(description)})


def without_checksum(content):
    holds, description, tensors = described(content)
    del description["sha256"]
    return written(holds, description, tensors)


# --- damages -----------------------------------------------------------------------------------


def flipped(content, draw):
    """One to three bits."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flipped_in_the_header(content, draw):
    (length,) = struct.unpack("<Q", content[:8])
    changed = bytearray(content)
    changed[draw.randrange(8 + length)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content, draw):
    return content[: draw.randrange(len(content))]


def overwritten(content, draw):
    """Some bytes by zeros, ones or noise."""
    size = draw.randrange(1, 200)
    first = draw.randrange(len(content))
    block = draw.choice([b"\0" * size, b"\xff" * size, draw.randbytes(size)])
    return content[:first] + block + content[first + size :]


def moved(content, draw):
    """Some bytes deleted, repeated or put in."""
    first = draw.randrange(len(content))
    last = min(len(content), first + draw.randrange(1, 100))
    block = draw.choice([b"", 2 * content[first:last], draw.randbytes(3) + content[first:last]])
    return content[:first] + block + content[last:]


def appended(content, draw):
    return content + draw.choice([b"\0", b"more", content])


def of_another_kind(content, draw):
    return draw.choice(
        [b"", b"\0", b"PK\3\4" + draw.randbytes(50), draw.randbytes(500), b"{}", b"\xff" * 16]
        + [struct.pack("<Q", n) + b"{}" for n in (0, 1, 3, 2**31, 2**63, 2**64 - 1)]
        + [closed(b"[" * 10**5, b""), closed(b'{"a":' * 10**5, b""), closed(b"{}", b"")]
    )


ODD = [None, True, False, -1, 0, 1, 3, 7, 2**31, 2**62, 10**18, 10**400, 1.5, -0.5, 1e308]
ODD += [float("nan"), float("inf"), "", "x", "28", "\ud800", "[bold]\n\x1b[0m", "y" * 10**5]
ODD += [[], {}, [1], [1, 2, 3, 4], {"a": 1}, [[[]]], [0] * 10**5]
ODD += ["Encoder", "DCGANDiscriminator", "SAGANEncoder", "MatrixOperator", "Whitened"]
ODD = [json.dumps(value) for value in ODD] + ["[" * depth + "]" * depth for depth in (70, 600)]
"""Values that no setting should have, in JSON."""


def nodes(value):
    """Every (container, key) inside a JSON value."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from nodes(value[key])


def with_another_description(content, draw):
    """A value of the description replaced, left out or added."""
    holds, description, tensors = described(content)
    for _ in range(draw.choice([1, 1, 2])):
        places = [(at, key) for at, key in nodes(description) if key != "sha256"]
        container, key = draw.choice(places)
        odd = json.loads(draw.choice(ODD))
        change = draw.choice(["replace", "replace", "replace", "leave out", "add", "scale"])
        if change == "leave out":
            del container[key]
        elif change == "add" and isinstance(container, dict):
            container[draw.choice(["width", "latent_dim", "other", ""])] = odd
        elif change == "scale" and isinstance(container[key], int):
            container[key] *= draw.choice([-1, 2, 1000, 10**9])
        else:
            container[key] = odd
    if draw.random() < 0.03:
        return serialise(tensors, {holds: draw.choice(["", "{", "[" * 10**6, "9" * 10**5, "null"])})
    return written(holds, description, tensors)


def another_tensor(value, draw):
    """A tensor with other numbers, of another shape or of another type."""
    flat = value.clone().flatten()
    place = draw.randrange(len(flat)) if len(flat) else 0
    if not value.is_floating_point():
        odd = torch.tensor(draw.choice([-1, -(2**62), 10**6, 2**62, 0, 1]))
        return draw.choice(
            [
                flat.index_fill(0, torch.tensor([place]), int(odd)).reshape(value.shape),
                value.flip(0) if value.ndim else value - 1,
                value.float(),
                value.int(),
                value.bool(),
                flat[:0],
                value[None],
            ]
        )
    odd = draw.choice([torch.nan, torch.inf, -torch.inf])
    return draw.choice(
        [
            flat.index_fill(0, torch.tensor([place]), odd).reshape(value.shape),
            flat,
            flat[:0],
            value[None],
            torch.cat([flat, flat]),
            value.int(),
            value.bool(),
            torch.zeros(0, 2**40),
            value.mT if value.ndim > 1 and value.shape[-1] != value.shape[-2] else value[None],
        ]
    )


def with_another_tensor(content, draw):
    holds, description, tensors = described(content)
    names = sorted(tensors) or ["none"]
    name = draw.choice(names)
    change = draw.choice(["alter", "alter", "alter", "leave out", "add", "rename"])
    value = tensors.pop(name, torch.zeros(2))
    if change == "alter":
        tensors[name] = another_tensor(value, draw).contiguous()
    elif change == "add":
        tensors |= {name: value, draw.choice(["other", "operator.index", "a" * 10**4]): value + 0}
    elif change == "rename":
        tensors[name + draw.choice(["x", ".weight", "\n"])] = value
    elif name == "none":
        tensors["matrix"] = value
    return written(holds, description, tensors)


def with_another_header(content, draw):
    """What safetensors itself says of a tensor, or of all."""
    header, rest = opened(content)
    names = [name for name in header if name != "__metadata__"] or ["a"]
    entry = header.setdefault(
        draw.choice(names), {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    )
    field = draw.choice(["dtype", "shape", "data_offsets", "__metadata__", "metadata of numbers"])
    if field == "dtype":
        entry["dtype"] = draw.choice(["F8_E5M2", "C64", "U64", "Q4", "", 3, None, "F64", "BOOL"])
    elif field == "shape":
        entry["shape"] = draw.choice([[], [2**60, 2**60], [2**62], [-1], [1.5], "4", None, [0]])
    elif field == "data_offsets":
        entry["data_offsets"] = draw.choice([[0, 0], [0, 2**63], [-8, 0], [4, 0], [], None, [0]])
    elif field == "__metadata__":
        header["__metadata__"] = draw.choice([{}, None, [], {"prior": ""}, {"x": "{}"}])
    else:
        header["__metadata__"] = {draw.choice(list(header["__metadata__"])): draw.choice([3, {}])}
    return closed(header, rest)


CARELESS = [
    flipped,
    flipped,
    flipped_in_the_header,
    flipped_in_the_header,
    cut,
    overwritten,
    moved,
    appended,
    of_another_kind,
    with_another_header,
]
"""Damages of any file; what is accepted is what was saved, and the checksum sees to it."""

CAREFUL = [with_another_description, with_another_description, with_another_tensor]
"""Files that are well made and say what is not so; made without checksum too."""


# --- what must hold ----------------------------------------------------------------------------


@contextmanager
def memory(extra):
    """At most so many bytes more than now."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def outcome(path, load):
    """What was loaded, or None where it was refused by one sentence that names the file."""
    try:
        return load(path)
    except ValueError as error:
        said = str(error)
        assert type(error) is ValueError and "\n" not in said and "\x1b" not in said, repr(error)
        assert said.startswith(f"{path} must ") and len(said) < 1000, said
        assert "emory" not in said and "alloc" not in said, said
        return None


def same(a, b):
    """Whether two networks or operators are the same in all that was saved."""
    mine, yours = a.state_dict(), b.state_dict()
    settings = ("latent_dim", "image_shape", "corrections", "m", "factor", "condition", "name")
    settings += ("architecture", "provenance", "channels")
    return (
        type(a) is type(b)
        and mine.keys() == yours.keys()
        and all(torch.equal(mine[key], yours[key]) for key in mine)
        and all(getattr(a, name, 0) == getattr(b, name, 0) for name in settings)
    )


def damage(kind, count, tmp_path):
    """Counts of damages, by what became of them."""
    save, load = KINDS[kind]
    torch.manual_seed(0)
    path = tmp_path / "a.safetensors"
    save(path)
    content = path.read_bytes()
    earlier = without_checksum(content)
    original = load(path)
    path.write_bytes(earlier)
    assert same(original, load(path))
    counts = {"refused": 0, "as saved": 0, "other, without checksum": 0}
    for seed in range(count):
        draw = random.Random(f"{kind} {seed}")
        old = draw.random() < 0.5
        how = draw.choice(CARELESS + 2 * CAREFUL)
        path.write_bytes(how(earlier if old else content, draw))
        with memory(2**30):
            found = outcome(path, load)
        if found is None:
            counts["refused"] += 1
        elif same(original, found):
            counts["as saved"] += 1
        else:
            assert old, f"{how.__name__}, seed {seed}: accepted though it is another {kind}"
            tensors = found.state_dict().values()
            assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
            counts["other, without checksum"] += 1
    assert counts["refused"] > 0.6 * count
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_by_name_or_is_what_was_saved(kind, tmp_path):
    assert sum(damage(kind, 40, tmp_path).values()) == 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_are_refused_by_name_or_are_what_was_saved(kind, tmp_path):
    print(kind, damage(kind, 500, tmp_path))


@pytest.mark.parametrize(
    ("kind", "where", "value"),
    [
        ("prior", ("architecture", "generator", "settings", "width"), 10**9),
        ("prior", ("architecture", "encoder", "settings", "hidden"), 4 * 10**5),
        ("prior", ("latent_dim",), 10**12),
        ("prior", ("image_shape",), [1, 10**6, 10**6]),
        ("prior, corrected", ("corrections",), 10**9),
        ("denoiser", ("settings", "width"), 10**5),
        ("onenet", ("settings", "channels"), 10**9),
        ("inpainting", ("image_shape",), [1, 10**6, 10**6]),
        ("super-resolution", ("image_shape",), [10**9, 10**9, 10**9]),
        ("dct", ("image_shape",), [1, 10**5, 4]),
        ("whitened mask", ("operator",), {"kind": "SubsampledDCT"}),
    ],
)
def test_no_setting_asks_for_more_than_the_file_holds(kind, where, value, tmp_path):
    save, load = KINDS[kind]
    path = tmp_path / "a.safetensors"
    save(path)
    holds, description, tensors = described(without_checksum(path.read_bytes()))
    inner = description
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    path.write_bytes(written(holds, description, tensors))
    with memory(2**29):
        assert outcome(path, load) is None


@pytest.mark.parametrize("index", [[-1, 2], [2, 2], [3, 2], [2, 16], [0, 2**62], []])
def test_places_that_are_none_of_the_images_are_refused(index, tmp_path):
    for kind in ("inpainting", "dct"):
        if kind == "dct" and index == [3, 2]:
            continue  # coefficients may come in any order
        save, load = KINDS[kind]
        path = tmp_path / "a.safetensors"
        save(path)
        holds, description, tensors = described(without_checksum(path.read_bytes()))
        tensors["index"] = torch.tensor(index, dtype=torch.int64)
        path.write_bytes(written(holds, description, tensors))
        assert outcome(path, load) is None


def test_what_a_file_holds_stays_when_the_file_goes(tmp_path):
    path, A = tmp_path / "a.safetensors", npgd.MatrixOperator(normal(3, 16), S)
    npgd.save_operator(A, path)
    loaded = npgd.load_operator(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(loaded.matrix, A.matrix)
    with pytest.raises(SafetensorError):
        parse(path.read_bytes())


@pytest.mark.parametrize("name", ["a\nb.safetensors", "\x1b[2J.safetensors", "\udcff.safetensors"])
@pytest.mark.parametrize("load", [npgd.load_prior, npgd.load_operator])
def test_a_name_that_a_terminal_would_obey_is_told_in_print(name, load, tmp_path):
    path = tmp_path / name
    for _ in range(2):  # first without such a file
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            load(path)
        assert str(caught.value).isprintable()
        path.write_bytes(b"nothing of the kind")
