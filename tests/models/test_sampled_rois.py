import torch

from mmdf2.models.roi_heads.sampled_rois import turns_within_image


def test_turns_are_a_permutation_within_each_image_and_serve_every_garment_first():
    torch.manual_seed(0)
    garments = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 5, 5, 5, 7])
    images = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2])
    for _ in range(20):
        turns = turns_within_image(garments, images)
        for image in (0, 2):
            assert sorted(turns[images == image].tolist()) == list(range(int((images == image).sum())))
        assert sorted(garments[(images == 0) & (turns < 3)].tolist()) == [0, 1, 2]
        assert sorted(garments[(images == 0) & (turns < 5)].tolist()) == [0, 0, 1, 2, 2]
        assert sorted(garments[(images == 2) & (turns < 2)].tolist()) == [5, 7]


def test_which_roi_of_a_garment_comes_first_is_random():
    torch.manual_seed(0)
    firsts = {
        turns_within_image(torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)).argmin().item()
        for _ in range(60)
    }
    assert firsts == {0, 1, 2, 3}


def test_no_rois():
    empty = torch.zeros(0, dtype=torch.long)
    assert turns_within_image(empty, empty).shape == (0,)
