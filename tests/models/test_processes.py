"""What several processes train equals what one trains: all streams, in training mode, over ten steps."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import TASK_UTILS
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from processes import run_in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.tiny import SIZE, make_sample, tiny_config

STEPS = 10
TWOS = 8
SYNC = {'type': 'mmdf2.BatchNorm', 'sync': True}
VARIANTS = {
    'default': {},
    'options': {'true_metric': True, 'same_category_weight': 3.0, 'contrastive_weight': 0.5, 'positive_share': 0.5},
    'LN': {'norm_cfg': {'type': 'LN'}, 'memory': 0},
}


@TASK_UTILS.register_module(force=True)
class FirstSampler(RandomSampler):
    """Takes the first candidates and not random ones, which would be others in other processes."""

    def random_choice(self, gallery, num):
        return gallery[:num]


class Streams(nn.Module):
    """The losses of a detector's second stage on given proposals.

    The first stage is MMDetection's own. Its proposals depend on comparisons of almost equal scores, in which one
    rounding error decides, and its loss counts an image without garments a little more than one with garments.
    """

    def __init__(self, variant):
        super().__init__()
        config = tiny_config()
        config.backbone.norm_cfg = SYNC
        head = config.roi_head
        head.mask_head.norm_cfg = head.keypoint_head.norm_cfg = SYNC
        head.match_head.update(sources=('pose', 'class'), in_channels=40, **{'memory': 100, **VARIANTS[variant]})
        torch.manual_seed(0)
        self.model = MODELS.build(config | {'_scope_': 'mmdet'})
        self.model.init_weights()
        self.model.roi_head.bbox_sampler = FirstSampler(32, 0.25, add_gt_as_proposals=True)
        del self.model.rpn_head

    def forward(self, images, samples, proposals):
        levels = self.model.extract_feat(images)
        losses = self.model.roi_head.loss(levels, proposals, samples)
        return {name: loss for name, loss in losses.items() if 'loss' in name}


def made_two(number):
    """A user and a shop image with no, one, two or three garments each, and proposals around these."""
    rng = np.random.default_rng(number)
    count = (0, 1, 3, 2)[number % 4]
    # As in the datasets: some garments have no identity, some images no landmarks.
    identities = [number * 65536 + 1, -1, number * 65536 + 2][:count]
    samples = [
        make_sample(rng, count, source, pair_id=number, identities=identities, visible=number != 5)
        for source in ('user', 'shop')
    ]
    proposals = []
    for sample in samples:
        boxes = sample.gt_instances.bboxes.repeat_interleave(4, dim=0)
        near = boxes + torch.from_numpy(rng.normal(0, 2, boxes.shape)).float()
        corner = torch.from_numpy(rng.uniform(0, SIZE / 2, (40 - 3 * number, 2))).float()
        far = torch.cat([corner, corner + SIZE / 4], dim=1)
        proposals.append(InstanceData(bboxes=torch.cat([near, far]).clamp(0, SIZE)))
        proposals[-1].labels = torch.zeros(len(proposals[-1]), dtype=torch.long)
        proposals[-1].scores = torch.ones(len(proposals[-1]))
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(number)), samples, proposals


def train(rank, processes, variant):
    """Ten steps on the same sixteen images; returns what is to be compared, as averages over the processes."""
    twos = [made_two(number) for number in range(TWOS)][rank::processes]
    streams = Streams(variant).train()
    model = DistributedDataParallel(streams, broadcast_buffers=False) if processes > 1 else streams
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    history = []
    for _ in range(STEPS):
        copies = [[InstanceData(**dict(own.items())) for own in proposals] for *_, proposals in twos]
        losses = model(
            torch.cat([images for images, *_ in twos]),
            [sample for _, samples, _ in twos for sample in samples],
            [own for proposals in copies for own in proposals],
        )
        optimizer.zero_grad()
        sum(losses.values()).backward()
        if not history:
            gradients = {name: parameter.grad.clone() for name, parameter in streams.named_parameters()}
        optimizer.step()
        history.append({name: loss.detach() for name, loss in losses.items()})
    return history, gradients, dict(streams.named_parameters()), dict(streams.named_buffers())


# Two of the variants are slow, so `make test` trains with the default alone.
@pytest.fixture(
    scope='module',
    params=[pytest.param(name, marks=[] if name == 'default' else [pytest.mark.slow]) for name in VARIANTS],
)
def runs(request):
    """The results of one process, and those of each of several processes."""
    processes = 8 if request.param == 'default' else 2
    return run_in_processes(train, 1, 1, request.param)[0], run_in_processes(train, processes, processes, request.param)


def detached(values):
    return {name: value.detach() for name, value in values.items()}


def test_losses_are_those_of_one_process(runs):
    (expected, *_), found = runs
    for step, losses in enumerate(expected):
        assert set(losses) >= {'loss_cls', 'loss_bbox', 'loss_mask', 'loss_keypoint', 'loss_match'}
        for name, loss in losses.items():
            of_processes = torch.stack([history[step][name] for history, *_ in found])
            torch.testing.assert_close(of_processes.mean(), loss, rtol=1e-4, atol=1e-6, msg=f'{name}, step {step}')
            if 'match' in name:
                torch.testing.assert_close(of_processes, loss.expand(len(found)), rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_one_process(runs):
    (_, expected, *_), found = runs
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for _, gradients, *_ in found:
        for name, gradient in expected.items():
            # The bias before a batch norm has no gradient but rounding errors.
            error = (gradients[name] - gradient).norm()
            assert error <= 1e-4 * gradient.norm() + 1e-5 * total, f'{name}: {error} of {gradient.norm()}'


def test_parameters_and_statistics_are_those_of_one_process(runs):
    (*_, parameters, buffers), found = runs
    for *_, own_parameters, own_buffers in found:
        for expected, own in ((parameters, own_parameters), (buffers, own_buffers)):
            for name, value in expected.items():
                # The garments of a batch are in the memory in the order of ranks.
                of_one, of_several = (
                    values.double().sum(dim=0) if '.memory.' in name and values.dim() else values.double()
                    for values in (value.detach(), own[name].detach())
                )
                difference = (of_several - of_one).norm()
                assert difference <= 1e-3 * of_one.norm() + 1e-4, f'{name}: {difference}'
        for expected, own in zip(found[0][2:], (own_parameters, own_buffers), strict=True):
            assert not [name for name, value in expected.items() if not torch.equal(own[name], value)]


def test_every_stream_has_moved(runs):
    (*_, parameters, buffers), _ = runs
    start = Streams('default')
    for stream in ('backbone', 'bbox_head', 'mask_head', 'keypoint_head', 'match_head'):
        values = {name: value for name, value in start.named_parameters() if stream in name}
        moved = [name for name, value in values.items() if not torch.equal(parameters[name], value)]
        assert len(moved) > 0.9 * len(values), stream
    changed = [name for name, value in start.named_buffers() if not torch.equal(buffers.get(name, value), value)]
    assert sum('running_var' in name for name in changed) > 20
