"""Sampling rules of the random multiple gallery."""

from __future__ import annotations

from itertools import islice

import numpy as np

from adapt.data.sampler import batches, class_members

LABELS = np.repeat(np.arange(10), 12)
CAMERAS = np.tile(np.arange(3, dtype=np.int32), 40)


def take(count: int, **options: object) -> list[np.ndarray]:
    settings = {"p": 5, "k": 4, "seed": 1, "epoch": 0} | options
    labels = settings.pop("labels", LABELS)
    cameras = settings.pop("cameras", CAMERAS)
    return list(islice(batches(labels, cameras, **settings), count))


def test_members_leave_negative_labels_out() -> None:
    found = class_members(np.array([1, -1, 0, 1, -1]))
    assert [group.tolist() for group in found] == [[2], [0, 3]]


def test_batches_hold_k_of_each_of_p_classes() -> None:
    for batch in take(20):
        groups = LABELS[batch].reshape(5, 4)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 5


def test_every_class_is_visited_once_a_pass() -> None:
    visited = [set(LABELS[np.concatenate(pair)]) for pair in zip(*[iter(take(8))] * 2, strict=True)]
    assert all(classes == set(range(10)) for classes in visited)


def test_partners_come_from_other_cameras() -> None:
    for batch in take(20):
        cameras = CAMERAS[batch].reshape(5, 4)
        assert (cameras[:, 1:] != cameras[:, :1]).all()


def test_partners_come_from_the_same_camera_where_there_is_no_other() -> None:
    batch = take(1, cameras=np.zeros(120, dtype=np.int32))[0].reshape(5, 4)
    assert all(len(set(group)) == 4 for group in batch.tolist())


def test_without_cameras_partners_are_other_members() -> None:
    same = 0
    for batch in take(20, cameras=None):
        groups = batch.reshape(5, 4)
        assert all(len(set(group)) == 4 for group in groups.tolist())
        same += int((CAMERAS[groups[:, 1:]] == CAMERAS[groups[:, :1]]).sum())
    assert same > 0


def test_few_candidates_are_drawn_with_replacement() -> None:
    labels = np.array([0, 0, 1, 1, -1])
    batch = take(1, labels=labels, cameras=None, p=2, k=4)[0].reshape(2, 4)
    assert all(len(set(group)) == 2 for group in batch.tolist())
    assert all(group[0] not in group[1:] for group in batch.tolist())
    assert 4 not in batch


def test_a_class_of_one_yields_one() -> None:
    labels = np.array([0, 1, 2, 3, 3])
    batch = take(1, labels=labels, cameras=None, p=2, k=4)[0]
    assert len(batch) == 8
    first_pass = batch[:7].tolist()
    assert sorted(row for row in first_pass if row < 3) == [0, 1, 2]
    assert sum(row >= 3 for row in first_pass) == 4


def test_seed_and_epoch_alone_decide() -> None:
    assert all(map(np.array_equal, take(5), take(5)))
    assert not all(map(np.array_equal, take(5), take(5, epoch=1)))
    assert not all(map(np.array_equal, take(5), take(5, seed=2)))


def test_nothing_labelled_yields_nothing() -> None:
    assert take(3, labels=np.full(120, -1)) == []
