"""What is loaded is what was saved; what is no operator is refused."""

import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from analysis.testing import normal
from npgd.operators import (
    Blur,
    Fourier,
    Gaussian,
    Inpainting,
    MatrixOperator,
    Radon,
    StructuredRandom,
    SubsampledDCT,
    SuperResolution,
    as_operator,
    load_operator,
    save_operator,
    whiten,
)
from npgd.operators.base import LinearOperator

DOUBLE = torch.float64
S = (1, 4, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(S, 5, seed=2),
        lambda: MatrixOperator(normal(3, 16), S),
        lambda: Inpainting(S, mask=normal(4, 4) > 0),
        lambda: SuperResolution(S, 2),
        lambda: SubsampledDCT(S, 7, seed=1),
        lambda: StructuredRandom(S, 7, seed=1, transform="hadamard"),
        lambda: Blur(S, normal(2, 3)),
        lambda: Blur(S, normal(1, 2, 3).float(), "valid"),
        lambda: Radon(S, angles=[0.0, 22.5, 90.0], detectors=5),
        lambda: Fourier(S, normal(4, 4) > 0),
        lambda: Fourier(S, normal(4, 4) > 0, torch.complex(normal(3, 4, 4), normal(3, 4, 4))),
        lambda: Fourier((2, 4, 4), normal(4, 4) > 0, complex_images=True),
        lambda: as_operator(torch.complex(normal(3, 16), normal(3, 16, seed=1)), S),
        lambda: whiten(StructuredRandom(S, 7)),
        lambda: whiten(Blur(S, normal(2, 3), "valid")),
        lambda: whiten(Gaussian(S, 5)),
        lambda: whiten(SuperResolution(S, 2)).double(),
        lambda: whiten(Inpainting(S, hole=2)).double(),
    ],
)
def test_what_is_loaded_is_what_was_saved(make, tmp_path):
    A, path = make(), tmp_path / "A.safetensors"
    save_operator(A, path, {"method": "by hand", "numbers": [1, 2.5]})
    B = load_operator(path)
    assert B.provenance["method"] == "by hand" and B.provenance["numbers"] == [1, 2.5]
    assert B.provenance["npgd"]
    x, y = normal(2, *A.image_shape).to(A._kind()[0]), normal(2, A.m).to(A._kind()[0])
    assert torch.equal(A(x), B(x)) and torch.equal(A.adjoint(y), B.adjoint(y))
    assert A.row_orthonormal == B.row_orthonormal and A.norm() == B.norm()
    assert load_operator(path, torch.float64)(x.double()).dtype == DOUBLE
    assert A.complex_measurements == B.complex_measurements
    assert [p.name for p in tmp_path.iterdir()] == ["A.safetensors"]
    if hasattr(A, "whiten"):
        assert torch.equal(A.whiten(y), B.whiten(y))


def test_a_saved_operator_keeps_its_own_provenance(tmp_path):
    save_operator(Gaussian(S, 5, seed=2), tmp_path / "g.safetensors")
    assert load_operator(tmp_path / "g.safetensors").provenance["seed"] == 2
    save_operator(load_operator(tmp_path / "g.safetensors"), tmp_path / "h.safetensors")
    assert load_operator(tmp_path / "h.safetensors").provenance["method"] == "gaussian"


def test_files_that_hold_no_operator_are_refused(tmp_path):
    path = tmp_path / "A.safetensors"
    with pytest.raises(FileNotFoundError, match=r"path must be a file .* where no file is"):
        load_operator(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="must be a safetensors file"):
        load_operator(path)
    save_file({"matrix": normal(3, 16)}, path)
    with pytest.raises(ValueError, match="must hold an operator"):
        load_operator(path)
    for header, message in (
        ("{", "must describe its operator in JSON"),
        ("[1]", "must describe its operator by names and values, got list"),
        (
            '{"kind": "Unknown", "image_shape": [1, 4, 4]}',
            "describes: .*provenance must be in the header",
        ),
        (
            '{"kind": "Inpainting", "provenance": {}}',
            "describes: image_shape must be in the header",
        ),
        (
            '{"kind": "Unknown", "provenance": {}, "image_shape": [1, 4, 4]}',
            "describes: kind must be known to this version, got 'Unknown'",
        ),
    ):
        save_file({"matrix": normal(3, 16)}, path, {"operator": header})
        with pytest.raises(ValueError, match=message):
            load_operator(path)
    with pytest.raises(ValueError, match=r"end in \.safetensors"):
        save_operator(Gaussian(S, 3), tmp_path / "A.pt")
    foreign = scipy.sparse.csr_array(normal(3, 16).numpy())
    with pytest.raises(TypeError, match="got ForeignOperator; save its matrix"):
        save_operator(as_operator(foreign, S), path)
    with pytest.raises(TypeError, match="provenance"):
        save_operator(Gaussian(S, 3), path, {"prior": object()})
    with pytest.raises(TypeError, match="A must be a LinearOperator"):
        save_operator(normal(3, 16), path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": None}, TypeError, "path must be a path, got None"),
        ({"path": 7}, TypeError, "path must be a path, got 7"),
        ({"path": "a\0"}, ValueError, "path must be a path that a file can have"),
        ({"dtype": torch.int32}, ValueError, r"dtype must be one of .*, got torch\.int32"),
        ({"dtype": "double"}, TypeError, "dtype must be a torch dtype .*, got 'double'"),
        ({"device": "nowhere"}, ValueError, "device must be one that is there, .*, got 'nowhere'"),
        ({"dtype": torch.float16}, ValueError, "matrix must be finite"),
    ],
)
def test_arguments_that_do_not_serve_are_refused_by_name(arguments, error, message, tmp_path):
    save_operator(MatrixOperator(1e6 * normal(3, 16), S), tmp_path / "A.safetensors")
    with pytest.raises(error, match=message) as caught:
        load_operator(**{"path": tmp_path / "A.safetensors"} | arguments)
    assert "\n" not in str(caught.value)


def test_what_could_not_be_read_again_is_not_saved(tmp_path):
    class Sum(MatrixOperator):
        def __init__(self):
            super().__init__(normal(3, 16), S)
            self.register_buffer("other", normal(3))

    path = tmp_path / "A.safetensors"
    nan, large = Gaussian(S, 3), Inpainting((1, 2**13, 2**14), hole=0)
    nan.matrix[0, 0] = torch.nan
    circle = {}
    circle["of"] = circle
    deep = {}
    for _ in range(100):
        deep = {"of": deep}
    for A, provenance, message in (
        (Sum(), None, "A must be a MatrixOperator that could be read again, got .*'other'"),
        (nan, None, "matrix must be finite, got NaN or infinity in 1 of 48 entries"),
        (large, None, "image_shape must have at most 67108864 numbers"),
        (Gaussian(S, 3), [1], "provenance must be names with values"),
        (Gaussian(S, 3), circle, "provenance must be values that JSON can hold"),
        (Gaussian(S, 3), deep, "provenance must be nested at most 64 deep"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            save_operator(A, path, provenance)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_operator_in_half_precision_is_read_in_its_own(dtype, tmp_path):
    A = Gaussian(S, 5).to(dtype)
    save_operator(A, tmp_path / "A.safetensors")
    assert torch.equal(load_operator(tmp_path / "A.safetensors").matrix, A.matrix)


class Scaled(LinearOperator):
    """Every pixel times a number of its own, and all times a factor."""

    def __init__(self, image_shape, factor=1.0):
        super().__init__(image_shape, m=16)
        self.factor = factor
        self.register_buffer("weights", normal(16))

    def _forward(self, x):
        return self.factor * self.weights * x.flatten(1)

    def _adjoint(self, y):
        return (self.factor * self.weights * y).reshape(-1, *self.image_shape)

    def _settings(self):
        return {"factor": self.factor}


class Forgetful(Scaled):
    def __init__(self, image_shape, factor):
        super().__init__(image_shape, factor)

    def _settings(self):
        return {}


def test_an_operator_of_a_class_of_ones_own_is_kept_by_its_import_path(tmp_path):
    A, path = Scaled(S, 3.0).double(), tmp_path / "A.safetensors"
    A.weights.mul_(2)
    save_operator(A, path, {"method": "by hand"})
    x = normal(2, *S)
    for named in (Scaled, f"{Scaled.__module__}:Scaled"):
        B = load_operator(path, classes=[named])
        assert torch.equal(A(x), B(x)) and B.provenance["method"] == "by hand"
    assert load_operator(path, torch.float32, classes=[Scaled]).weights.dtype == torch.float32
    with pytest.raises(ValueError, match=r"class is known, got .*Scaled; if you trust its code"):
        load_operator(path)
    with pytest.raises(TypeError, match="made anew from the image shape and its `_settings`"):
        save_operator(Forgetful(S, 2.0), path)

    class Local(Scaled):
        pass

    with pytest.raises(TypeError, match="must be an operator that tensors describe, got Local"):
        save_operator(Local(S), path)
    with pytest.raises(TypeError, match="classes must be classes or import paths in a row"):
        load_operator(path, classes="mine:Scaled")
