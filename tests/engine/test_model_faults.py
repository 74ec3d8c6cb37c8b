"""Testing goes on after images on which the model fails, and ends when it fails on all."""

from types import SimpleNamespace

import pytest
from mmdet.structures import DetDataSample

from mmdf2.engine.runs import _ModelFaultsHook


class Model:
    """Predicts nothing, and fails on batches in which an image has one of these names."""

    def __init__(self, *bad):
        self.bad, self.batches = bad, []

    def test_step(self, data):
        names = [sample.img_path for sample in data['data_samples']]
        assert data['inputs'] == names
        self.batches.append(names)
        if set(names) & set(self.bad):
            raise RuntimeError('no kernel for it\nand a long trace')
        return data['data_samples']

    val_step = test_step


def batch(*names):
    return {'inputs': list(names), 'data_samples': [DetDataSample(metainfo={'img_path': name}) for name in names]}


def guarded(model, images, kind):
    loader = SimpleNamespace(dataset=range(images))
    runner = SimpleNamespace(model=model, test_dataloader=loader, val_dataloader=loader)
    hook = _ModelFaultsHook()
    getattr(hook, f'before_{kind}')(runner)
    return hook, runner


@pytest.mark.parametrize('kind', ['test', 'val'])
def test_the_image_on_which_the_model_fails_is_marked_and_no_other(kind):
    model = Model('b.jpg')
    hook, runner = guarded(model, 100, kind)
    step = getattr(runner.model, f'{kind}_step')
    found = step(batch('a.jpg', 'b.jpg', 'c.jpg')) + step(batch('d.jpg', 'e.jpg'))
    assert [sample.img_path for sample in found] == ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg', 'e.jpg']
    marked = {sample.img_path: sample.unreadable for sample in found if 'unreadable' in sample}
    assert marked == {'b.jpg': 'b.jpg: the model failed on it: RuntimeError: no kernel for it'}
    # Only the batch that failed is tried image by image.
    assert [len(names) for names in model.batches] == [3, 1, 1, 1, 2]
    getattr(hook, f'after_{kind}')(runner)
    assert getattr(model, f'{kind}_step').__func__ is Model.test_step


@pytest.mark.parametrize(('images', 'marked'), [(3, 2), (20, 19), (5000, 19)])
def test_a_model_that_fails_on_all_images_ends_the_test(images, marked):
    names = [f'{number}.jpg' for number in range(images)]
    _, runner = guarded(Model(*names), images, 'test')
    for name in names[:marked]:
        assert 'unreadable' in runner.model.test_step(batch(name))[0]
    with pytest.raises(RuntimeError, match='no kernel'):
        runner.model.test_step(batch(names[marked]))
