import os

import numpy as np
import pytest
from PIL import Image

from camsweep.core.data import DataSection, open_dataset
from camsweep.core.errors import RequestError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 12, 9, 3), dtype=np.uint8)


def opened(path, **more):
    return open_dataset(DataSection(path=path, **more))


def only(dataset):
    return dataset.read([0]).values[0]


@pytest.fixture
def classes(tmp_path):
    for i, image in enumerate(RGB):
        folder = tmp_path / "data" / ("dog" if i % 2 else "cat")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return tmp_path / "data"


def test_class_folders(classes):
    dataset = opened(classes)
    assert tuple(dataset.classes) == ("cat", "dog")
    assert dataset.ids[0] == "cat/00.png"
    np.testing.assert_array_equal(dataset.labels, [0] * 10 + [1] * 10)
    np.testing.assert_array_equal(
        dataset.read(range(20)).values, RGB[[*range(0, 20, 2), *range(1, 20, 2)]].transpose(0, 3, 1, 2)
    )
    np.testing.assert_array_equal(opened(classes, classes=["dog", "cat"]).labels, [1] * 10 + [0] * 10)
    with pytest.raises(RequestError, match="dog"):
        opened(classes, classes=["cat", "dogg"])


@pytest.mark.parametrize("fault", ["empty", "text", "truncated", "gone", "fifo"])
def test_one_bad_image_among_twenty(classes, fault):
    path = classes / "cat" / "08.png"
    data = path.read_bytes()
    dataset = opened(classes)
    if fault in ("gone", "fifo"):
        path.unlink()
    if fault == "fifo":
        os.mkfifo(path)
    if fault not in ("gone", "fifo"):
        path.write_bytes({"empty": b"", "text": b"hello\n" * 30, "truncated": data[: len(data) // 2]}[fault])
    batch = dataset.read(range(20))
    assert list(batch.failed) == [4]
    assert batch.failed[4].startswith("cannot read image: ")
    np.testing.assert_array_equal(batch.rows, [r for r in range(20) if r != 4])
    shown = dataset.display(range(20))
    assert np.isnan(shown[4]).all()
    assert np.isfinite(np.delete(shown, 4, 0)).all()


def test_deep_images_keep_their_depth(tmp_path):
    deep = RNG.integers(0, 65536, (12, 9), dtype=np.uint16)
    real = RNG.random((12, 9), dtype=np.float32)
    for name, image in {"deep.png": deep, "deep.tif": deep, "real.tif": real}.items():
        (folder := tmp_path / name.replace(".", "_")).mkdir()
        Image.fromarray(image).save(folder / name)
        np.testing.assert_array_equal(only(opened(folder)), image[None].astype(np.float32))
        np.testing.assert_array_equal(only(opened(folder, mode="rgb")), np.stack([image] * 3).astype(np.float32))


def save(tmp_path, image, name="a.png", **more):
    image.save(tmp_path / name, **more)
    return only(opened(tmp_path))


def test_alpha_lies_over_white(tmp_path):
    rgba = RNG.integers(0, 256, (12, 9, 4), dtype=np.uint8)
    alpha = rgba[..., 3:] / 255
    got = save(tmp_path, Image.fromarray(rgba))
    np.testing.assert_allclose(got, (rgba[..., :3] * alpha + 255 * (1 - alpha)).transpose(2, 0, 1), atol=1)


def test_grey_with_alpha_stays_grey(tmp_path):
    grey, alpha = RNG.integers(0, 256, (2, 12, 9), dtype=np.uint8)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    got = save(tmp_path, image)
    np.testing.assert_allclose(got, [grey * (alpha / 255) + 255 - alpha], atol=1)


def test_palette_cmyk_and_one_bit(tmp_path):
    image = Image.fromarray(RGB[0])
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    for name, stored, expected in (
        ("p.png", palette, palette.convert("RGB")),
        ("c.tif", image.convert("CMYK"), image.convert("CMYK").convert("RGB")),
    ):
        (folder := tmp_path / name[0]).mkdir()
        np.testing.assert_array_equal(save(folder, stored, name), np.asarray(expected).transpose(2, 0, 1))
    (folder := tmp_path / "bits").mkdir()
    bits = RNG.random((12, 9)) > 0.5
    np.testing.assert_array_equal(save(folder, Image.fromarray(bits)), 255.0 * bits[None])


def test_the_camera_s_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise by 90 degrees to be seen upright
    got = save(tmp_path, Image.fromarray(RGB[0]), exif=exif)
    np.testing.assert_array_equal(got, np.rot90(RGB[0], -1).transpose(2, 0, 1))


def test_several_frames_are_refused(tmp_path, classes):
    Image.fromarray(RGB[0]).save(classes / "cat" / "00.gif", save_all=True, append_images=[Image.fromarray(RGB[1])])
    dataset = opened(classes)
    row = list(dataset.ids).index("cat/00.gif")
    assert "frames" in dataset.read([row]).failed[row]


def test_decompression_bomb(classes, monkeypatch):
    Image.new("1", (100, 90)).save(classes / "cat" / "99.png")
    dataset = opened(classes)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    row = list(dataset.ids).index("cat/99.png")
    assert dataset.read([row]).failed[row].startswith("cannot read image: ")


def test_mixed_sizes(tmp_path):
    shapes = [(12, 9), (20, 15), (12, 9), (7, 31)]
    pictures = [RNG.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    batch = opened(tmp_path, transforms=[{"resize": [6, 5]}]).read(range(4))
    assert list(batch.rows) == [0, 1, 2, 3]
    for picture, got in zip(pictures, batch.values, strict=True):
        planes = [
            Image.fromarray(c.astype(np.float32)).resize((5, 6), Image.Resampling.BILINEAR)
            for c in picture.transpose(2, 0, 1)
        ]
        np.testing.assert_allclose(got, [np.asarray(plane) for plane in planes], atol=1e-3)
    plain = opened(tmp_path).read(range(4))
    assert list(plain.rows) == [0, 2]
    assert plain.failed[1] == "shape (3, 20, 15), expected (3, 12, 9); add the transform { resize = [12, 9] }"


@pytest.fixture
def mixed(tmp_path):
    for i, shape in enumerate([(12, 9), (20, 15), (12, 9)]):
        Image.fromarray(np.full((*shape, 3), 7, np.uint8)).save(tmp_path / f"{i}.png")
    return opened(tmp_path)


def test_display_of_mixed_sizes(mixed):
    shown = mixed.display(range(3))
    assert np.isnan(shown[1]).all()
    np.testing.assert_array_equal(shown[[0, 2]], 7)


def test_display_of_another_size_alone(mixed):
    assert mixed.display([1]).shape == (1, *mixed.shape)


def test_mixed_channels_are_told_the_mode(tmp_path):
    Image.fromarray(RGB[0]).save(tmp_path / "0.png")
    Image.fromarray(RGB[1, ..., 0]).save(tmp_path / "1.png")
    assert 'mode = "rgb"' in opened(tmp_path).read([0, 1]).failed[1]
    np.testing.assert_array_equal(opened(tmp_path, mode="rgb").read([1]).values[0], np.stack([RGB[1, ..., 0]] * 3))


def test_one_image_too_small_to_crop_is_one_failure(classes):
    Image.fromarray(RGB[0][:5, :4]).save(classes / "cat" / "99.png")
    batch = opened(classes, transforms=[{"crop": [8, 8]}]).read(range(21))
    assert list(batch.failed) == [10]


def test_display_is_aligned_and_in_stored_values(classes):
    steps = [{"scale": 1 / 255}, {"crop": [8, 6]}, {"normalize": {"mean": 0.5, "std": 0.2}}]
    dataset = opened(classes, transforms=steps)
    shown, read = dataset.display(range(4)), dataset.read(range(4)).values
    np.testing.assert_allclose((shown / 255 - 0.5) / 0.2, read, atol=1e-5)
    np.testing.assert_array_equal(shown[0], RGB[0][2:10, 1:7].transpose(2, 0, 1))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_manifest(classes, tmp_path, end, separator, bom):
    lines = [["id", "path", "label"], ["b", "dog/03.png", "dog"], ["a", "cat/00.png", "cat"], ["c", "cat/02.png", ""]]
    path = tmp_path / "m.csv"
    path.write_bytes((bom + end.join(separator.join(line) for line in lines) + end).encode())
    dataset = opened(classes, manifest=path)
    assert (list(dataset.ids), list(dataset.labels), tuple(dataset.classes)) == (
        ["b", "a", "c"],
        [1, 0, -1],
        ("cat", "dog"),
    )
    np.testing.assert_array_equal(dataset.read(range(3)).values, RGB[[3, 0, 2]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"file,label\na.png,cat\n", "path.*file|file.*path"),
        (b"", "path"),
        (b"path\n", "0 rows|no rows|names no"),
        ("path,label\nä.png,cat\n".encode("latin-1"), "UTF-8"),
        (b"id,path\na,cat/00.png\na,cat/02.png\n", "'a'"),
        (b"path,label\n,cat\n", "line 2"),
    ],
)
def test_manifest_faults(classes, tmp_path, content, words):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=words):
        opened(classes, manifest=path)


def test_manifest_naming_a_missing_image(classes, tmp_path):
    (tmp_path / "m.csv").write_text("path\ncat/00.png\ncat/none.png\n")
    batch = opened(classes, manifest=tmp_path / "m.csv").read(range(2))
    assert batch.failed[1].startswith("cannot read image: ")


def test_nothing_there(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(RequestError, match=r"1 file.*png|png.*1 file"):
        opened(tmp_path)


def test_all_unreadable(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(RequestError, match="cannot read image"):
        opened(tmp_path)


def test_a_layout_that_images_do_not_have(classes):
    with pytest.raises(RequestError, match="NHWC"):
        opened(classes, layout="NCHW")


def test_the_labels_of_a_manifest_are_in_the_fingerprint(classes, tmp_path):
    path, found = tmp_path / "m.csv", set()
    for label in ("cat", "dog"):
        path.write_text(f"path,label\ncat/00.png,{label}\n")
        found.add(opened(classes, manifest=path).fingerprint)
    assert len(found) == 2


def test_symlink_loop(classes):
    (classes / "cat" / "again").symlink_to(classes)
    assert len(opened(classes)) == 20
