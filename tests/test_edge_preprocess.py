"""The picture's way to the model's input: geometry, formats, and what is refused."""

import hashlib
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from edge import jpeg
from edge.contract import InputContract, Roi
from edge.errors import ContractError, ImageError
from edge.preprocess import MAX_PIXELS, PADDING, decode_file, prepare_file, to_model_input

MODES = ("squash", "letterbox", "center-crop")
SAME_PIXELS = "6e24f884751557ca35a7b77961a5439f3258d6251f4f903db5afe763987f1096"  # sha256
SQUARE = InputContract(width=32, height=32)


def photo(width: int, height: int, seed: int = 0, noise: int = 4) -> np.ndarray:
    """uint8 (height, width, 3): soft colours with camera noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(16, 240, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return np.clip(smooth + generator.integers(-noise, noise + 1, smooth.shape), 0, 255).astype(np.uint8)


def encode(picture: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(stream, format, **options)
    return stream.getvalue()


def difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.abs(left.astype(int) - right.astype(int))


def contracts(width: int, height: int) -> list[InputContract]:
    regions = [None, Roi(8, 16, width // 2, height // 2), Roi(3, 5, width - 10, height - 9)]
    return [InputContract(*size, mode, region) for size in ((64, 32), (48, 48)) for mode in MODES for region in regions]


@pytest.mark.parametrize(("width", "height"), [(640, 480), (643, 401), (101, 97), (64, 64), (900, 40)])
def test_a_raw_frame_and_its_png_give_the_same_pixels(width: int, height: int) -> None:
    frame = photo(width, height)
    data = encode(frame, "PNG", compress_level=1)
    for contract in contracts(width, height):
        prepared = prepare_file(data, contract)
        assert prepared.pixels.shape == (1, contract.height, contract.width, 3)
        assert (prepared.width_px, prepared.height_px) == (width, height)
        np.testing.assert_array_equal(prepared.pixels, to_model_input(frame, contract))


def test_every_environment_gives_the_same_pixels() -> None:
    """A cache made with one version of Pillow must hold what a device with another one computes.

    Whoever changes the pixels on purpose changes the digest, and raises PREPROCESSING_VERSION of the dataset's cache.
    """
    digest = hashlib.sha256()
    generator = np.random.default_rng(0)
    for width, height in ((160, 120), (120, 160), (45, 67), (67, 45), (500, 90), (90, 500), (30, 20)):
        frame = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for mode in MODES:
            digest.update(to_model_input(frame, InputContract(32, 40, mode)).tobytes())
    assert digest.hexdigest() == SAME_PIXELS


@pytest.mark.parametrize(("width", "height"), [(1600, 1200), (1601, 1199), (643, 401), (300, 900), (101, 97)])
def test_a_raw_frame_and_its_jpeg_give_nearly_the_same_pixels(width: int, height: int) -> None:
    frame = photo(width, height)
    data = encode(frame, "JPEG", quality=95)
    decoded = np.asarray(Image.open(io.BytesIO(data)))
    for contract in contracts(width, height):
        pixels = prepare_file(data, contract).pixels
        unavoidable = difference(to_model_input(decoded, contract), to_model_input(frame, contract))
        seen = difference(pixels, to_model_input(frame, contract))
        assert seen.mean() <= unavoidable.mean() + 0.7, contract
        assert seen.max() <= unavoidable.max() + 8, contract


def test_the_jpeg_decoder_shrinks_only_on_the_grid_of_halving() -> None:
    data = encode(photo(640, 480), "JPEG", quality=95)

    def scale(roi: Roi | None, mode: str = "squash") -> int:
        decoded = decode_file(data, InputContract(32, 32, mode, roi))
        assert decoded.plan.factor >= decoded.scale
        return decoded.scale

    assert scale(None) == 8
    assert scale(Roi(8, 16, 512, 320)) == 8
    assert scale(Roi(8, 12, 512, 320)) == 4
    assert scale(Roi(2, 4, 512, 320)) == 2
    assert scale(Roi(1, 4, 512, 320)) == 1
    assert scale(Roi(8, 16, 510, 320)) == 2
    assert scale(None, "center-crop") == 8
    assert scale(Roi(0, 0, 630, 480), "center-crop") == 1  # begins at column 75
    assert scale(Roi(0, 0, 70, 70)) == 2  # not to less than the target


def test_a_partial_last_cell_counts_only_for_what_it_holds() -> None:
    frame = np.zeros((64, 129, 3), np.uint8)
    frame[:, 64:] = 200  # the step lies at 64 of 129 columns
    contract = InputContract(32, 32)
    for pixels in (to_model_input(frame, contract), prepare_file(encode(frame, "JPEG", quality=100), contract).pixels):
        assert pixels.mean() == pytest.approx(200 * 65 / 129, abs=1.5)


def test_squash_fills_the_input_and_letterbox_pads_with_grey() -> None:
    white = np.full((40, 80, 3), 255, np.uint8)
    assert (to_model_input(white, SQUARE) == 255).all()
    boxed = to_model_input(white, InputContract(32, 32, "letterbox"))[0]
    assert (boxed[8:24] == 255).all()
    assert (boxed[:8] == PADDING).all()
    assert (boxed[24:] == PADDING).all()
    tall = to_model_input(white.transpose(1, 0, 2), InputContract(32, 32, "letterbox"))[0]
    assert (tall[:, 8:24] == 255).all()
    assert (tall[:, :8] == PADDING).all()


def test_center_crop_keeps_the_middle_at_the_inputs_aspect_ratio() -> None:
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 20:60] = 255
    assert (to_model_input(frame, InputContract(32, 32, "center-crop")) == 255).all()
    frame = np.zeros((80, 80, 3), np.uint8)
    frame[20:60] = 255
    assert (to_model_input(frame, InputContract(64, 32, "center-crop")) == 255).all()


def test_the_region_of_interest_is_cut_in_original_pixels() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[30:70, 120:180] = (10, 200, 30)
    contract = InputContract(32, 32, roi=Roi(120, 30, 60, 40))
    assert (to_model_input(frame, contract) == (10, 200, 30)).all()
    assert (prepare_file(encode(frame, "PNG"), contract).pixels == (10, 200, 30)).all()


@pytest.mark.parametrize(
    "roi", [Roi(0, 0, 65, 10), Roi(60, 0, 5, 5), Roi(0, 44, 5, 5), Roi(-1, 0, 5, 5), Roi(100, 100, 5, 5)]
)
def test_a_region_outside_the_picture_is_refused(roi: Roi) -> None:
    frame, contract = photo(64, 48), InputContract(32, 32, roi=roi)
    with pytest.raises(ImageError, match=r"frame: the region of interest .* not inside this picture of 64x48 px"):
        to_model_input(frame, contract)
    with pytest.raises(ImageError, match=r"part\.png: the region of interest"):
        prepare_file(encode(frame, "PNG"), contract, "part.png")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3000), (3000, 2), (5, 7), (31, 33)])
@pytest.mark.parametrize("mode", MODES)
def test_small_and_extreme_pictures_come_out_at_the_inputs_size(width: int, height: int, mode: str) -> None:
    frame = np.full((height, width, 3), 77, np.uint8)
    contract = InputContract(40, 24, mode)
    for data in (encode(frame, "PNG"), encode(frame, "JPEG", quality=95)):
        pixels = prepare_file(data, contract).pixels
        assert pixels.shape == (1, 24, 40, 3)
        assert pixels.dtype == np.uint8
        if mode != "letterbox":
            assert difference(pixels, np.full_like(pixels, 77)).max() <= 1


# Orientation

_STORED_FROM_UPRIGHT = {  # what a camera that is held so writes to the file; Exif 2.32
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_honoured(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for width, height in ((200, 120), (201, 123)):
        upright = photo(width, height, noise=0)
        stored = Image.fromarray(np.ascontiguousarray(_STORED_FROM_UPRIGHT[orientation](upright)))
        if format == "TIFF":
            tags = ImageFileDirectory_v2()
            tags[0x0112] = orientation
            data = encode(stored, format, tiffinfo=tags)
        else:
            data = encode(stored, format, exif=exif, **({"quality": 98} if format == "JPEG" else {}))
        for contract in (
            SQUARE,
            InputContract(32, 24, "letterbox"),
            InputContract(24, 32, "center-crop", Roi(8, 40, 160, 64)),
            InputContract(24, 24, roi=Roi(5, 3, 131, 77)),
        ):
            prepared = prepare_file(data, contract)
            assert (prepared.width_px, prepared.height_px) == (width, height)
            seen = difference(prepared.pixels, to_model_input(upright, contract))
            assert seen.mean() <= (1.5 if format == "JPEG" else 0), contract


def test_an_orientation_that_is_no_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    frame = photo(64, 48)
    np.testing.assert_array_equal(
        prepare_file(encode(frame, "PNG", exif=exif), SQUARE).pixels, to_model_input(frame, SQUARE)
    )


# Pixel types


def test_grey_pictures_have_three_equal_channels() -> None:
    grey = photo(64, 48)[:, :, 0]
    want = to_model_input(np.repeat(grey[:, :, np.newaxis], 3, axis=2), SQUARE)
    image = Image.fromarray(grey)
    for data in (encode(image, "PNG"), encode(image, "BMP"), encode(image, "TIFF"), encode(image.convert("LA"), "PNG")):
        np.testing.assert_array_equal(prepare_file(data, SQUARE).pixels, want)
    assert difference(prepare_file(encode(image, "JPEG", quality=98), SQUARE).pixels, want).mean() < 1


def test_colours_come_through_in_every_format() -> None:
    frame = photo(64, 48)
    want = to_model_input(frame, SQUARE)
    image = Image.fromarray(frame)
    for data in (
        encode(image, "PNG"),
        encode(image, "BMP"),
        encode(image, "TIFF"),
        encode(image, "TIFF", compression="tiff_lzw"),
        encode(image.convert("RGBA"), "PNG"),
        encode(image.convert("RGBA"), "TIFF"),
        encode(image.convert("RGBA"), "BMP"),
    ):
        np.testing.assert_array_equal(prepare_file(data, SQUARE).pixels, want)
    for data in (
        encode(image.convert("CMYK"), "JPEG", quality=98),
        encode(image.convert("CMYK"), "TIFF"),
        encode(image.convert("YCbCr"), "TIFF", compression="tiff_lzw"),
        encode(image, "JPEG", quality=98, progressive=True),
    ):
        assert difference(prepare_file(data, SQUARE).pixels, want).mean() < 1.5


def test_alpha_is_dropped_and_not_blended() -> None:
    frame = photo(64, 48)
    clear = np.concatenate([frame, np.zeros((48, 64, 1), np.uint8)], axis=2)
    np.testing.assert_array_equal(prepare_file(encode(clear, "PNG"), SQUARE).pixels, to_model_input(frame, SQUARE))


def test_palettes_give_their_colours_with_and_without_a_transparent_one() -> None:
    image = Image.fromarray(photo(64, 48, noise=0)).quantize(32)
    want = to_model_input(np.asarray(image.convert("RGB")), SQUARE)
    for data in (
        encode(image, "PNG"),
        encode(image, "BMP"),
        encode(image, "PNG", transparency=3),
        encode(image, "PNG", transparency=bytes(range(32))),
    ):
        np.testing.assert_array_equal(prepare_file(data, SQUARE).pixels, want)


def test_one_bit_pictures_are_black_and_white() -> None:
    bits = np.zeros((64, 64), bool)
    bits[:, 32:] = True
    for format in ("PNG", "BMP", "TIFF"):
        pixels = prepare_file(encode(Image.fromarray(bits), format), SQUARE).pixels
        assert (pixels[0, :, :15] == 0).all()
        assert (pixels[0, :, 17:] == 255).all()


@pytest.mark.parametrize("white_level", [65535, 4095, 1023, 300])
def test_16_bit_grey_is_scaled_by_the_white_level(white_level: int) -> None:
    ramp = np.linspace(0, white_level, 64 * 64).astype(np.uint16).reshape(64, 64)
    contract = InputContract(64, 64, white_level=white_level)
    want = np.rint(ramp * (255 / white_level))
    big_endian = Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes())
    for data in (encode(ramp, "PNG"), encode(ramp, "TIFF"), encode(big_endian, "TIFF")):
        pixels = prepare_file(data, contract).pixels
        assert difference(pixels[0, :, :, 1], want).max() <= 1
        assert pixels.min() == 0
        assert pixels.max() == 255


def test_16_bit_grey_above_the_white_level_is_white() -> None:
    frame = np.full((40, 40), 5000, np.uint16)
    assert (prepare_file(encode(frame, "PNG"), InputContract(32, 32, white_level=4095)).pixels == 255).all()


def colour_png_16_bit(values: np.ndarray) -> bytes:
    """PNG with 16 bits per channel, which Pillow cannot write. values: uint16 (H, W, 3)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_colour_keeps_its_upper_8_bits_and_refuses_a_white_level() -> None:
    data = colour_png_16_bit(np.full((40, 40, 3), 0x80FF, np.uint16))
    assert (prepare_file(data, SQUARE).pixels == 0x80).all()
    with pytest.raises(ImageError, match="16-bit colour keeps only its upper 8 bits"):
        prepare_file(data, InputContract(32, 32, white_level=4095))


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_other_pixel_types_are_refused_with_the_way_out(mode: str) -> None:
    data = encode(Image.new(mode, (40, 40)), "TIFF")
    with pytest.raises(ImageError, match=rf"part\.tif: want 8- or 16-bit grey.*{mode}.*save the picture as"):
        prepare_file(data, SQUARE, "part.tif")


# What is refused


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ImageError, match=r"part\.jpg: the file is empty"):
        prepare_file(b"", SQUARE, "part.jpg")


def test_text_and_other_formats_are_refused() -> None:
    for data in (b"not a picture at all", b"\xff\xd8", encode(photo(40, 40), "GIF"), encode(photo(40, 40), "WEBP")):
        with pytest.raises(
            ImageError, match=r"part\.jpg: want a JPEG, PNG, BMP or TIFF picture, found data that begins"
        ):
            prepare_file(data, SQUARE, "part.jpg")


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.5, 0.9, 0.97])
def test_a_truncated_file_is_refused(format: str, options: dict[str, object], share: float) -> None:
    data = encode(photo(160, 120), format, **options)
    with pytest.raises(ImageError, match=r"part: .*(take or copy the picture again|found data that begins)"):
        prepare_file(data[: max(4, int(len(data) * share))], SQUARE, "part")


def jpegs_with_damage() -> dict[str, tuple[bytes, bytes]]:
    """Whole JPEGs, and what is left when a cable or a disk lost a part of them."""
    frame = Image.fromarray(photo(640, 480))
    kinds = {
        "baseline": encode(frame, "JPEG", quality=90),
        "progressive": encode(frame, "JPEG", quality=90, progressive=True),
        "grey": encode(frame.convert("L"), "JPEG", quality=90),
        "cmyk": encode(frame.convert("CMYK"), "JPEG", quality=90),
    }
    cases = {}
    for name, whole in kinds.items():
        fifth = len(whole) // 5
        cases[f"{name}: middle lost"] = whole, whole[: 2 * fifth] + whole[3 * fifth :]
        cases[f"{name}: ended early"] = whole, whole[: 3 * fifth] + b"\xff\xd9"
    return cases


@pytest.mark.skipif(not jpeg.HAS_STRICT_DECODER, reason="32-bit boards decode with Pillow, which does not tell")
@pytest.mark.parametrize("case", jpegs_with_damage())
@pytest.mark.parametrize("contract", [SQUARE, InputContract(640, 480)], ids=["shrunk", "in full"])
def test_a_jpeg_that_lost_bytes_is_refused_though_it_has_an_end(case: str, contract: InputContract) -> None:
    whole, damaged = jpegs_with_damage()[case]
    assert prepare_file(whole, contract).width_px == 640
    with pytest.raises(ImageError, match=r"part: cannot decode this JPEG: .*; take or copy the picture again"):
        prepare_file(damaged, contract, "part")


def test_what_cameras_write_around_a_jpeg_does_no_harm() -> None:
    whole = encode(photo(160, 120), "JPEG", quality=90)
    for data in (whole + bytes(500), whole[:-2] + b"\0\0" + whole[-2:], whole[:-2] + b"\xff\xff" + whole[-2:]):
        np.testing.assert_array_equal(prepare_file(data, SQUARE).pixels, prepare_file(whole, SQUARE).pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_jpegs_decode_to_the_pixels_that_pillow_gives(
    monkeypatch: pytest.MonkeyPatch, mode: str, options: dict[str, object]
) -> None:
    for size in ((160, 120), (161, 123), (97, 223)):
        data = encode(Image.fromarray(photo(*size)).convert(mode), "JPEG", quality=88, **options)
        for contract in (SQUARE, InputContract(64, 50), InputContract(*size)):
            strict = prepare_file(data, contract).pixels
            with monkeypatch.context() as patch:
                patch.setattr(jpeg, "HAS_STRICT_DECODER", False)  # as on 32-bit boards
                np.testing.assert_array_equal(prepare_file(data, contract).pixels, strict)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_decoded_jpeg_stays_what_it_is_when_the_next_one_comes(mode: str) -> None:
    first, second = (encode(Image.fromarray(photo(80, 60, seed)).convert(mode), "JPEG") for seed in (1, 2))
    decoded = decode_file(first, SQUARE)
    before = np.array(decoded.image)
    decode_file(second, SQUARE)
    np.testing.assert_array_equal(np.array(decoded.image), before)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    huge = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    for data in (header, huge):
        with pytest.raises(ImageError, match=rf"want 1 to {MAX_PIXELS} pixels, found \d+x\d+"):
            prepare_file(data, SQUARE)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF"])
def test_a_damaged_file_is_judged_or_refused_but_never_raises_anything_else(format: str) -> None:
    generator = np.random.default_rng(0)
    whole = np.frombuffer(encode(photo(60, 50), format), np.uint8)
    refused = 0
    for _ in range(150):
        damaged = whole.copy()
        places = generator.integers(0, min(len(whole), generator.choice([60, 400, len(whole)])), 4)
        damaged[places] = generator.integers(0, 256, 4)
        try:
            assert prepare_file(damaged.tobytes(), SQUARE).pixels.shape == (1, 32, 32, 3)
        except ImageError:
            refused += 1
    assert refused > 0


def test_pillows_global_settings_stay_as_they_were() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    prepare_file(encode(photo(64, 48), "JPEG"), SQUARE)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_threads_get_the_pixels_that_one_thread_gets() -> None:
    files = [encode(photo(200, 150, seed), "JPEG") for seed in range(8)]
    alone = [prepare_file(data, SQUARE).pixels for data in files]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: prepare_file(data, SQUARE).pixels, files * 4))
    for index, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, alone[index % len(files)])


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 3), np.float32),
        np.zeros((1, 40, 40, 3), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
    ],
)
def test_a_frame_that_is_not_8_bit_rgb_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(ContractError, match="frame: want uint8 RGB of shape"):
        to_model_input(frame, SQUARE)


def test_a_frame_may_be_a_view() -> None:
    bgr = photo(100, 80)
    np.testing.assert_array_equal(
        to_model_input(bgr[::2, ::-1, ::-1], SQUARE), to_model_input(np.ascontiguousarray(bgr[::2, ::-1, ::-1]), SQUARE)
    )


@pytest.mark.real
@pytest.mark.parametrize("pattern", ["cookies/**/*.jpg", "aliens/**/*.png"])
def test_real_pictures_and_their_jpegs_give_nearly_the_same_pixels(real_data: Path, pattern: str) -> None:
    files = sorted(path for path in real_data.glob(pattern) if "mask" not in path.as_posix())[::12]
    assert len(files) >= 5
    for file in files:
        frame = np.asarray(Image.open(file).convert("RGB"))
        for contract in (InputContract(224, 224), InputContract(96, 96, "letterbox")):
            pixels = prepare_file(encode(frame, "JPEG", quality=95), contract).pixels
            assert difference(pixels, to_model_input(frame, contract)).mean() < 1.0, file
