"""benchmarks/measure_transfer.py: readers of photos on made files, and figures of predictions that are known."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.tiny import build_tiny
from scipy.io import savemat
from tiny_run import ROOT, run_tool, write_config

from mmdf2.images import write_image


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('measure_transfer', ROOT / 'benchmarks/measure_transfer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Prophet:
    """An inferencer that finds given boxes with given scores."""

    def __init__(self, found):
        self.found = found

    def predict(self, paths):
        for path in paths:
            boxes, scores = self.found[Path(path).name]
            instances = SimpleNamespace(bboxes=np.array(boxes, float).reshape(-1, 4), scores=np.array(scores, float))
            yield SimpleNamespace(data_sample=SimpleNamespace(pred_instances=instances))


def test_average_precision_of_known_boxes(script):
    photos = [
        script.Photo(Path('one.jpg'), np.array([[0, 0, 10, 20], [30, 30, 60, 80]], float)),
        script.Photo(Path('two.jpg'), np.array([[5, 5, 25, 25]], float)),
    ]
    right = {'one.jpg': (photos[0].boxes, [0.9, 0.8]), 'two.jpg': (photos[1].boxes, [0.7])}
    assert script.box_figures(Prophet(right), photos)['garment_AP'] == pytest.approx(1)
    # One of three is missed: precision 1 up to a recall of two thirds, at 67 of the 101 thresholds.
    partly = {'one.jpg': (photos[0].boxes, [0.9, 0.8]), 'two.jpg': ([], [])}
    assert script.box_figures(Prophet(partly), photos)['garment_AP50'] == pytest.approx(67 / 101)
    nothing = {'one.jpg': ([], []), 'two.jpg': ([], [])}
    assert script.box_figures(Prophet(nothing), photos) == {'garment_AP': 0, 'garment_AP50': 0, 'garment_AR': 0}


@pytest.fixture
def street(tmp_path):
    """Five photos in the layout of Clothing Co-Parsing, with a bag and a dress on each."""
    labels = np.empty((1, 4), dtype=object)
    labels[0] = ['null', 'bag', 'dress', 'skin']
    savemat(tmp_path / 'label_list.mat', {'label_list': labels})
    classes = np.zeros((60, 40), dtype=np.uint8)
    classes[10:20, 5:25] = 1
    classes[20:50, 10:30] = 2
    classes[55, 39] = 2  # a stray pixel
    (tmp_path / 'annotations/pixel-level').mkdir(parents=True)
    for number in range(1, 6):
        savemat(tmp_path / f'annotations/pixel-level/{number:04d}.mat', {'groundtruth': classes})
        write_image(tmp_path / f'photos/{number:04d}.jpg', np.full((60, 40, 3), 90, dtype=np.uint8))
    return tmp_path


def test_clothing_co_parsing_is_read_by_its_tags(script, street):
    photos = list(script.clothing_co_parsing_photos(street, every=2))
    assert [photo.path.name for photo in photos] == ['0001.jpg', '0003.jpg', '0005.jpg']
    np.testing.assert_array_equal(photos[0].boxes, [[10, 20, 30, 50]])
    assert photos[0].labels is None


def test_a_model_is_measured_on_photos_of_both_kinds(tmp_path, tiny_root, street):
    write_config(tmp_path, tiny_root)
    torch.save({'state_dict': build_tiny().state_dict()}, tmp_path / 'weights.pth')
    model = tmp_path / 'config.py', tmp_path / 'weights.pth'
    out = tmp_path / 'figures.json'
    run_tool('measure_transfer.py', *model, '--photos', tiny_root / 'validation', '--out', out, folder='benchmarks')
    figures = json.loads(out.read_text())
    assert figures['photos'] == len(list((tiny_root / 'validation/annos').iterdir()))
    assert figures['landmarks'] > 10
    assert 0 <= figures['landmarks_within_tenth'] <= figures['landmarks_near'] <= 1
    assert figures['landmark_distance_median'] > 0

    run_tool('measure_transfer.py', *model, '--clothing-co-parsing', street, '--out', out, folder='benchmarks')
    figures = json.loads(out.read_text())
    assert (figures['photos'], figures['garments']) == (2, 2)

    (street / 'annotations/pixel-level').rename(street / 'elsewhere')
    for missing in (('--clothing-co-parsing', street), ('--clothing-co-parsing', street / 'nowhere')):
        printed = run_tool('measure_transfer.py', *model, *missing, folder='benchmarks', expect=1)
        assert str(missing[1]) in printed and 'Traceback' not in printed
