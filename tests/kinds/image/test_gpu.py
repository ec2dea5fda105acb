"""What runs on a GPU, as far as a machine without one can tell, and the rest where there is one.

Without CUDA the kernels run in Triton's interpreter, and torchvision's decoder on the CPU takes
nvJPEG's place: as plain a decoder, without EXIF or colour profiles.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import triton
from numpy.typing import NDArray
from PIL import Image, ImageCms
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

HAS_CUDA = torch.cuda.is_available()
if not HAS_CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined

from pipeline import kinds  # noqa: E402
from pipeline.backbones import engines  # noqa: E402
from pipeline.backbones.engines.engine import Engine  # noqa: E402
from pipeline.core import params  # noqa: E402
from pipeline.core.errors import DeviceError  # noqa: E402
from pipeline.kinds import Preprocessing  # noqa: E402
from pipeline.kinds.image import decode, gpu, preprocess, views  # noqa: E402
from pipeline.kinds.image.views import ORIGINAL, View  # noqa: E402
from tests.conftest import Project  # noqa: E402
from tests.helpers import picture_cases  # noqa: E402

DEVICE = torch.device("cuda" if HAS_CUDA else "cpu")
SMALL = Preprocessing(64, 56, "bicubic", (0.5,) * 3, (0.5,) * 3)
IMAGE = kinds.named("image")
PLAN = [ORIGINAL, View(hflip=True), View(13, 1.08), View(-7.5, 0.93, True, True), View(90, 0.6)]

needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_CUDA:  # the interpreter takes as long for a large block as for a small one
        monkeypatch.setattr(gpu, "BLOCK", 2**15)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """300 × 300 pixels of a cup of coffee."""
    return Image.fromarray(skimage.data.coffee()).crop((150, 50, 450, 350))


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def on_device(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().to(DEVICE)


def on_cpu(data: bytes, wanted: list[View], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    base = preprocess.base(data, preprocessing)
    return np.stack([preprocess.crop(views.apply(base, v), preprocessing.crop) for v in wanted])


@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_pictures_of_any_sizes_are_scaled_together_to_pillows_bits(
    photograph: Image.Image, kind: str
) -> None:
    sizes = [(100, 75), (75, 101), (64, 64), (40, 33), (64, 90), (245, 200), (150, 50), (30, 80)]
    asked = SMALL._replace(interpolation=kind)
    resized = [photograph.resize(size) for size in sizes]
    scaled = gpu.scale([on_device(picture) for picture in resized], asked)
    for i, picture in enumerate(resized):
        wanted = preprocess.base(encoded(picture, "PNG"), asked)
        height, width, start = scaled.height[i], scaled.width[i], scaled.start[i]
        pixels = scaled.pixels[start : start + 3 * height * width].view(3, height, width)
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).cpu(), wanted, f"{sizes[i]}")


def test_views_are_warped_as_opencv_does_to_a_grey_level(photograph: Image.Image) -> None:
    resized = [photograph.resize(size) for size in [(64, 64), (91, 64), (64, 80)]]
    planes = [on_device(picture) for picture in resized]
    sizes = np.array([plane.shape[1:] for plane in planes])
    start = np.array([0, planes[0].numel(), planes[0].numel() + planes[1].numel()])
    scaled = gpu.Bases(torch.cat([p.flatten() for p in planes]), start, sizes[:, 0], sizes[:, 1])
    plans = [PLAN, PLAN[2:], [View(45, 1.3, False, True), View(-180), View(0.1)]]
    seen = gpu.warp(scaled, plans, 56).cpu().numpy()
    wanted = [
        preprocess.crop(views.apply(np.asarray(picture), view), 56)
        for picture, plan in zip(resized, plans, strict=True)
        for view in plan
    ]
    difference = np.abs(seen.astype(int) - np.stack(wanted))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert not difference[:2].any()  # the original and its mirror image are copies


def test_mixed_files_give_the_views_of_the_cpu_in_the_order_asked(photograph: Image.Image) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encoded(photograph.crop((0, 0, 120, 90))),
        encoded(photograph.crop((0, 0, 90, 120)), "PNG"),
        encoded(photograph.crop((5, 5, 105, 80)), exif=turned),
        encoded(photograph.crop((9, 9, 99, 99)), progressive=True),
        encoded(photograph.crop((0, 50, 200, 150)), subsampling=0),
        encoded(photograph.resize((300, 280))),  # large enough to be decoded at half its size
    ]
    asked = list(zip(files, [PLAN, PLAN[:1], PLAN[2:4], PLAN[1:2], PLAN[3:], PLAN], strict=True))
    seen = gpu.make_views(asked, SMALL, DEVICE).cpu().numpy().astype(int)
    wanted = np.concatenate([on_cpu(data, plan, SMALL) for data, plan in asked])
    # On a GPU, nvJPEG's colours at sharp edges; `benchmarks/extract.md` has the estimate.
    largest, mean = (60, 2) if HAS_CUDA else (1, 0.01)
    assert np.abs(seen - wanted).max() <= largest
    assert np.abs(seen - wanted).mean() < mean

    alone = np.concatenate([gpu.make_views([one], SMALL, DEVICE).cpu().numpy() for one in asked])
    np.testing.assert_array_equal(seen, alone)


@pytest.mark.parametrize("name", picture_cases.TAKEN)
def test_what_goes_to_nvjpeg_needs_only_a_plain_decoder(name: str) -> None:
    data = picture_cases.TAKEN[name].data()
    if gpu.suits_nvjpeg(data, 64):
        (plain,) = gpu.decode([data], torch.device("cpu"))
        assert plain is not None
        whole = decode.pixels(decode.decode(data, 64)).astype(int)
        assert np.abs(plain.permute(1, 2, 0).numpy() - whole).max() <= 2


def jpegs(photograph: Image.Image) -> dict[str, tuple[bytes, bool]]:
    """JPEGs of a kind, and whether they suit nvJPEG for a shorter side of 64 pixels."""
    picture = photograph.resize((200, 150))
    upright, turned = Image.Exif(), Image.Exif()
    upright[0x0112], turned[0x0112] = 1, 3
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    return {
        "4:2:0": (encoded(picture, subsampling=2), True),
        "4:2:2": (encoded(picture, subsampling=1), True),
        "4:4:4": (encoded(picture, subsampling=0), True),
        "with a comment": (encoded(picture, comment=b"\xff\xda\xff\xc2" * 9), True),
        "upright by EXIF": (encoded(picture, exif=upright), True),
        "sRGB by its profile": (encoded(picture, icc_profile=srgb), True),
        "a damaged profile": (encoded(picture, icc_profile=b"junk"), True),
        "turned by EXIF": (encoded(picture, exif=turned), False),
        "turned by XMP": (encoded(picture, xmp=xmp), False),
        "damaged EXIF": (encoded(picture, exif=b"Exif\0\0junk"), False),
        "progressive": (encoded(picture, progressive=True), False),
        "grey": (encoded(picture.convert("L")), False),
        "CMYK": (encoded(picture.convert("CMYK")), False),
        "RGB": (encoded(picture, keep_rgb=True), False),
        "large": (encoded(picture.resize((400, 256))), False),
        "nearly as large": (encoded(picture.resize((400, 255))), True),
        "wide": (encoded(picture.resize((301, 100))), False),
        "tall": (encoded(picture.resize((100, 301))), False),
        "nearly as tall": (encoded(picture.resize((100, 300))), True),
        "PNG": (encoded(picture, "PNG"), False),
        "cut in its header": (encoded(picture)[:300], False),
        "two bytes": (b"\xff\xd8", False),
        "empty": (b"", False),
    }


def test_which_jpegs_suit_nvjpeg(photograph: Image.Image) -> None:
    told = {name: gpu.suits_nvjpeg(data, 64) for name, (data, _) in jpegs(photograph).items()}
    assert told == {name: suits for name, (_, suits) in jpegs(photograph).items()}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_no_cut_of_a_header_upsets_the_reader(photograph: Image.Image) -> None:
    for data, _ in jpegs(photograph).values():
        header = data[: min(data.rfind(b"\xff\xda"), 1000)]
        assert not any(gpu.suits_nvjpeg(header[:end], 64) for end in range(len(header)))


def test_a_file_the_decoder_refuses_keeps_no_other_from_being_decoded(
    photograph: Image.Image,
) -> None:
    small = photograph.resize((40, 30))
    good, bad = encoded(small), encoded(small)[:400] + b"\xff\xd9"
    decoded = gpu.decode([good, bad, good, good, bad], DEVICE)
    assert [picture is None for picture in decoded] == [False, True, False, False, True]
    assert decoded[0] is not None
    assert decoded[0].shape == (3, 30, 40)
    assert gpu.decode([], DEVICE) == []


def test_half_the_pictures_are_taken_where_memory_runs_out(
    photograph: Image.Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Memory that runs out for real is tested below, on a GPU.
    real = gpu.scale

    def scale_two(decoded: list[torch.Tensor], preprocessing: Preprocessing) -> gpu.Bases:
        if len(decoded) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(decoded, preprocessing)

    asked = [(encoded(photograph.resize((80 + i, 70))), [ORIGINAL]) for i in range(5)]
    whole = gpu.make_views(asked, SMALL, DEVICE)
    monkeypatch.setattr(gpu, "scale", scale_two)
    limit = 2
    assert torch.equal(gpu.make_views(asked, SMALL, DEVICE), whole)
    assert "GPU memory ran out; now 2 pictures at a time" in capsys.readouterr().out
    limit = 0
    with pytest.raises(DeviceError, match="GPU memory does not suffice for one example"):
        gpu.make_views(asked, SMALL, DEVICE)


def test_the_kernels_compile_for_a_gpu_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(gpu, "_mirrored", JITFunction(gpu._mirrored.fn))
    for kernel, types, constants in [
        (gpu._scale_kernel, "*u8 *u8 *i64 *i32 *i32 *i32 i32 i32", {"BITS": 22, "SIZE": 512}),
        (gpu._warp_kernel, "*u8 *u8 *i64 *fp32", {"SIDE": 224, "SIZE": 512}),
    ]:
        function = JITFunction(kernel.fn)  # as it is outside the interpreter
        kinds = [*types.split(), "constexpr", "constexpr"]
        signature = dict(zip(function.arg_names, kinds, strict=True))
        source = ASTSource(function, signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert compiled.asm["cubin"].startswith(b"\x7fELF")


# --- on a GPU -------------------------------------------------------------------------------------


def cuda_engine(**changes: object) -> Engine:
    asked = {"device": "cuda", "batch_size": 16} | changes
    return engines.open_engine(params.load(kinds.schema).extract.model_copy(update=asked), IMAGE)


@pytest.fixture
def files(photograph: Image.Image) -> list[bytes]:
    """Sixteen JPEGs and PNGs of several sizes."""
    pieces = [photograph.crop((i, 2 * i, 200 + 5 * i, 260)) for i in range(16)]
    return [
        encoded(piece.resize((400 + 9 * i, 300)), "PNG" if i % 5 == 4 else "JPEG")
        for i, piece in enumerate(pieces)
    ]


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_picture_has_the_same_bits_on_a_gpu_in_any_company(
    project: Project, files: list[bytes], precision: str
) -> None:
    engine = cuda_engine(precision=precision)
    asked = [(data, PLAN[: 1 + i % 3]) for i, data in enumerate(files)]
    together = engine.run(engine.make_views(asked))
    alone = np.concatenate([engine.run(engine.make_views([one])) for one in asked])
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda one: engine.run(engine.make_views([one])), asked))
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, np.concatenate(at_once))


@needs_cuda
def test_a_gpu_and_the_cpu_agree(project: Project, files: list[bytes]) -> None:
    """On the same views to 1e-4 in float32; from the same files as nvJPEG and precision allow."""
    plain = engines.open_engine(
        params.load(kinds.schema).extract.model_copy(update={"device": "cpu"}), IMAGE
    )
    asked = [(data, PLAN[:2]) for data in files]
    seen = plain.make_views(asked)
    wanted = plain.run(seen)
    np.testing.assert_allclose(cuda_engine().run(seen), wanted, rtol=1e-4, atol=1e-4)
    for precision, cosine in {"float32": 0.997, "float16": 0.997, "bfloat16": 0.985}.items():
        engine = cuda_engine(precision=precision)
        got = engine.run(engine.make_views(asked))
        norms = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
        assert ((got * wanted).sum(axis=1) / norms).min() > cosine, precision


@needs_cuda
def test_gpu_memory_that_runs_out_halves_the_batch(
    project: Project, files: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = torch.cuda.get_device_properties(0).total_memory
    small = cuda_engine()
    torch.cuda.set_per_process_memory_fraction(2e9 / whole)
    try:
        large = cuda_engine(batch_size=4096)
        assert "GPU memory ran out; now 2048 views at a time" in capsys.readouterr().out
        assert large.fingerprint != small.fingerprint
        seen = large.make_views([(data, [ORIGINAL]) for data in files])
        np.testing.assert_allclose(large.run(seen), small.run(seen), rtol=1e-4, atol=1e-4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@needs_cuda
def test_what_changes_numbers_on_a_gpu_is_in_the_fingerprint(project: Project) -> None:
    told = [cuda_engine(), cuda_engine(precision="bfloat16"), cuda_engine(batch_size=8)]
    told += [
        engines.open_engine(
            params.load(kinds.schema).extract.model_copy(update={"device": "cpu"}), IMAGE
        )
    ]
    assert len({engine.fingerprint for engine in told}) == 4
    assert cuda_engine().fingerprint == told[0].fingerprint
