"""The real teachers, where their files are; what is asked of any teacher is asked of each."""

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import InputError
from hfnet_export.training.targets import find_peaks, sample
from hfnet_export.training.teachers import ImageNet, local_teacher


@pytest.fixture
def photo(shared_data):
    image = cv2.imread(str(shared_data / "train" / "selfexsr_0107.jpg"))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(("name", "dim"), [("alike_n.npz", 128), ("alike_l.npz", 128), ("xfeat.onnx", 64)])
def test_local_teachers_find_the_same_points_in_a_shifted_crop(shared_data, photo, name, dim):
    teacher = local_teacher(shared_data / "teachers" / name)
    shift = 32
    crops = np.stack([photo[40 : 40 + 256, 64 : 64 + 256], photo[40 : 40 + 256, 64 + shift : 64 + shift + 256]])
    scores, dense = teacher(crops)
    assert scores.shape == (2, 256, 256) and scores.min() >= 0 and scores.max() <= 1
    assert dense.shape[-1] == teacher.descriptor_dim == dim
    np.testing.assert_allclose(np.linalg.norm(dense, axis=-1), 1, atol=1e-3)
    a, _ = find_peaks(scores[0])
    b, _ = find_peaks(scores[1])
    inside = (a[:, 0] > shift + 40) & (a[:, 0] < 216) & (a[:, 1] > 40) & (a[:, 1] < 216)
    a = a[inside][:50]
    distance = np.linalg.norm(a[:, None] - shift * np.array([1, 0]) - b[None], axis=-1)
    assert (distance.min(axis=1) < 1).mean() > 0.8, "keypoints move with the picture"
    here, there = sample(dense[0], a, (256, 256)), sample(dense[1], a - np.array([shift, 0]), (256, 256))
    other = sample(dense[1], np.roll(a, 1, axis=0) - np.array([shift, 0]), (256, 256))
    assert np.median((here * there).sum(1)) > 0.9, "and so do their descriptors"
    nearer = (here * there).sum(1) > (here * other).sum(1)
    assert nearer.mean() > 0.9, "which differ from each other"


def test_the_global_teacher_knows_a_photo_again(shared_data):
    teacher = ImageNet(shared_data / "teachers" / "mobilenetv2_1.0_imagenet.npz")
    paths = sorted((shared_data / "train").glob("selfexsr_*.jpg"))[:12]
    images = [cv2.resize(cv2.imread(str(p)), (320, 320))[..., ::-1] for p in paths]

    def descriptors(images):
        maps = teacher.features(np.stack(images))
        assert maps.shape == (12, 10, 10, 320)
        means = maps.mean(axis=(1, 2))
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    whole = descriptors(images)
    part = descriptors([cv2.resize(i[24:296, 24:296], (320, 320)) for i in images])
    assert ((whole @ part.T).argmax(axis=1) == np.arange(12)).all()


def test_unknown_teachers_are_named(tmp_path):
    with pytest.raises(InputError, match=r"superpoint\.npz"):
        local_teacher(tmp_path / "superpoint.npz")
    (tmp_path / "alike_n.npz").write_bytes(b"no")
    with pytest.raises(InputError, match=r"alike_n\.npz"):
        local_teacher(tmp_path / "alike_n.npz")
