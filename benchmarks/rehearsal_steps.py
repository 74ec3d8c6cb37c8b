"""The steps of rehearsal.py that run code of their own, each in a process of its own, or in several by torchrun.

Each prints what it has found out as a JSON object, its last line.
"""

import argparse
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import made_split
import numpy as np

from mmdf2.files import locked, open_for_replacement, usable_cores
from mmdf2.wardrobe import make_wardrobe

CONFIG = Path(__file__).parents[1] / 'configs/match_rcnn/match-rcnn-pose_r50_fpn_1x_deepfashion2.py'
# The released dataset's numbers of images.
SPLITS = {'train': 191_961, 'validation': made_split.IMAGES}
# Identities that are drawn for each split at full scale. Four shop and two user images each make about as many user
# images as the released validation split has: a third.
IDENTITIES, IMAGES_PER_IDENTITY = {'train': 600, 'validation': 100}, (4, 2)
# Drawn images are 624 x 624 or 468 x 624 pixels. Most of the dataset's user images are 468 pixels wide.
LONGER_SIDE = 624
EMBED_DIMS = 256
# The narrow model has all streams of the paper's model, and its images are so small that processes of one CPU core
# each take steps of a few seconds.
NARROW = {
    'backbone': {'depth': 18, 'base_channels': 8},
    'neck': {'in_channels': [8, 16, 32, 64], 'out_channels': 16},
    'rpn_head': {'in_channels': 16, 'feat_channels': 16},
    'roi_head': {
        'bbox_roi_extractor': {'out_channels': 16},
        'bbox_head': {'in_channels': 16, 'fc_out_channels': 32},
        'mask_roi_extractor': {'out_channels': 16},
        'mask_head': {'in_channels': 16, 'conv_out_channels': 16, 'num_convs': 1},
        'keypoint_head': {'in_channels': 16, 'conv_channels': 24, 'num_convs': 2},
        'match_head': {'in_channels': 24, 'conv_channels': (16, 32), 'embed_dims': 8},
    },
}
NARROW_SCALE = (160, 120)


def data(args) -> dict:
    """Makes the dataset: a drawn wardrobe, whose images are repeated up to the dataset's size."""
    shutil.rmtree(args.dir / 'predictions', ignore_errors=True)
    identities = {split: max(4, round(count * min(1, 4 * args.scale))) for split, count in IDENTITIES.items()}
    for split, count in identities.items():
        make_wardrobe(args.dir / 'drawn', count, split=split, size=LONGER_SIDE, images_per_identity=IMAGES_PER_IDENTITY)
    counts = {split: max(48, round(count * args.scale)) for split, count in SPLITS.items()}
    for split, count in counts.items():
        shutil.rmtree(args.dir / 'deepfashion2' / split, ignore_errors=True)
        made_split.repeat_split(args.dir / 'drawn' / split, args.dir / 'deepfashion2' / split, count)
    pictures = list((args.dir / 'drawn').glob('*/image/*.jpg'))
    size = sum(path.stat().st_size for path in pictures)
    return {'images': counts, 'pictures': len(pictures), 'bytes_per_picture': size / len(pictures)}


def config(args) -> dict:
    """Writes the paper's config for the rehearsal: ``narrow.py`` with a narrow model, ``full_size.py`` with its own."""
    from mmengine.config import Config

    for name in ('narrow', 'full_size'):
        cfg = Config.fromfile(CONFIG)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = str(args.dir / 'deepfashion2')
            # The first images of a split are few identities, so that they hold whole pairs.
            loader.dataset.indices = 12 * args.processes
        for metric in (*cfg.val_evaluator, *cfg.test_evaluator):
            metric.data_root = str(args.dir / 'deepfashion2')
        cfg.default_hooks.logger.interval = cfg.log_processor.window_size = 1
        cfg.train_cfg.max_epochs = 1
        if name == 'narrow':
            cfg.merge_from_dict({'model': NARROW})
            cfg.model.backbone.init_cfg.checkpoint = str(_write_backbone(args.dir / 'runs' / 'backbone.pth'))
            for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
                for transform in loader.dataset.pipeline:
                    if transform['type'] == 'mmdf2.Resize':
                        transform['scale'] = NARROW_SCALE
        (args.dir / 'runs').mkdir(exist_ok=True)
        cfg.dump(args.dir / 'runs' / f'{name}.py')
    return {}


def _write_backbone(path: Path) -> Path:
    """Writes random weights for the narrow backbone in the way of torchvision's files, with those of a classifier."""
    import torch
    from mmdet.models import ResNet

    weights = ResNet(**NARROW['backbone']).state_dict()
    torch.save({**weights, 'fc.weight': torch.zeros(1000, 64), 'fc.bias': torch.zeros(1000)}, path)
    return path


def opening(args) -> dict:
    """Opens the store of the training split as a dataset, as every process of a training does."""
    from mmdf2.datasets.deepfashion2 import DeepFashion2Dataset

    before, start = peak_memory(), time.process_time()
    dataset = DeepFashion2Dataset(args.dir / 'deepfashion2', 'train')
    seconds, memory = time.process_time() - start, peak_memory() - before
    rows = range(0, len(dataset), max(1, len(dataset) // 2000))
    start = time.process_time()
    for row in rows:
        dataset.get_data_info(row)
    each = (time.process_time() - start) / len(rows)
    stores = (args.dir / 'deepfashion2').glob('*.store/*')
    return {
        'open_seconds': seconds,
        'memory': memory,
        'milliseconds_per_image': 1000 * each,
        'bytes_of_stores': sum(path.stat().st_size for path in stores),
    }


def sampler(args) -> dict:
    """Draws the order of two epochs, in one process or in several; the orders of both must be the same batches."""
    from mmengine.config import Config
    from mmengine.dist import all_gather_object, get_dist_info, is_main_process

    from mmdf2.registry import DATA_SAMPLERS, DATASETS

    cfg = Config.fromfile(CONFIG).train_dataloader
    cfg.dataset.update(data_root=str(args.dir / 'deepfashion2'), pipeline=[])
    start = time.process_time()
    drawn = DATA_SAMPLERS.build({**cfg.sampler, 'dataset': DATASETS.build(cfg.dataset), 'seed': 0})
    build_seconds, seconds, orders = time.process_time() - start, [], []
    for epoch in range(2):
        start = time.process_time()
        drawn.set_epoch(epoch)
        orders.append(list(drawn))
        seconds.append(time.process_time() - start)
    shares = all_gather_object(orders)
    if is_main_process():
        _compare_orders(args.dir / 'runs' / 'orders.npy', np.array(shares), get_dist_info()[1])
    return {'build_seconds': build_seconds, 'epoch_seconds': max(seconds), 'images_per_process': len(orders[0])}


def _compare_orders(path: Path, shares: np.ndarray, processes: int) -> None:
    """Saves the orders (1, epochs, images) of one process, or compares those of several with them.

    A process takes every n-th two of the sequence; at the end, the first twos may be repeated for equal shares.
    """
    twos = shares.reshape(*shares.shape[:2], -1, 2).transpose(1, 2, 0, 3)
    orders = twos.reshape(len(twos), -1)
    if processes == 1:
        with open_for_replacement(path, 'wb') as file:
            np.save(file, orders)
        return
    alone = np.load(path)
    repeated = orders.shape[1] - alone.shape[1]
    expected = np.concatenate([alone, alone[:, :repeated]], axis=1)
    if not (0 <= repeated < 2 * processes and np.array_equal(orders, expected)):
        raise SystemExit(f'the batches of {processes} processes are not those of one process')


def loading(args) -> dict:
    """Loads training batches as the paper's config does: in this process, as a worker does, and by two workers."""
    import torch
    from mmengine.config import Config
    from mmengine.runner import Runner
    from mmengine.utils.dl_utils import set_multi_processing

    cfg = Config.fromfile(CONFIG)
    set_multi_processing(**cfg.env_cfg.mp_cfg)
    torch.set_num_threads(1)
    cfg.train_dataloader.dataset.data_root = str(args.dir / 'deepfashion2')
    batches, found = max(8, round(200 * min(1, args.scale))), {}
    for workers in (0, 2):
        cfg.train_dataloader.num_workers = workers
        loader = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
        for _ in range(4):
            next(loader)
        clocks = time.process_time(), time.perf_counter()
        for _ in range(batches):
            next(loader)
        images = batches * cfg.train_dataloader.batch_size
        found[f'cpu_seconds_per_image_{workers}'] = (time.process_time() - clocks[0]) / images
        found[f'images_per_second_{workers}'] = images / (time.perf_counter() - clocks[1])
        del loader
    return found


def full_size(args) -> dict:
    """Takes a step of the paper's model on two images of the paper's size, and counts operations of a forward pass.

    The weights are random, so hardly a proposal overlaps a garment. Half of the proposals are put near garments. Then
    as many RoIs are positive as a trained model has at most, 128 per image; time and memory depend on their number.
    """
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.runner import Runner
    from torch.utils.flop_counter import FlopCounterMode

    init_default_scope('mmdet')
    cfg = Config.fromfile(args.dir / 'runs' / 'full_size.py')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    batch = next(iter(Runner.build_dataloader({**cfg.train_dataloader, 'num_workers': 0}, seed=0)))
    model = _near_garments(MODELS.build(cfg.model))
    model.init_weights()
    model.train()
    inputs = model.data_preprocessor(batch, training=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    resident, before = resident_memory(), _clocks()
    loss, _ = model.parse_losses(model(**inputs, mode='loss'))
    loss.backward()
    optimizer.step()
    after = _clocks()
    if not torch.isfinite(loss):
        raise SystemExit(f'the loss became {loss.item()}')
    optimizer.zero_grad()
    operations = {}
    cfg.model.roi_head.update(keypoint_head=None, match_head=None)
    for name, counted in (
        ('operations', model),
        ('operations_of_mask_rcnn', _near_garments(MODELS.build(cfg.model)).train()),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            counted(**inputs, mode='loss')
        operations[name] = counter.get_total_flops()
    return {
        'iteration_seconds': after[0] - before[0],
        'iteration_cpu_seconds': after[1] - before[1],
        'iteration_memory': after[2] - resident,
        'input_shape': list(inputs['inputs'].shape),
        'checkpoint_bytes': 2 * sum(value.nbytes for value in model.parameters()),
        **operations,
    }


def _near_garments(model):
    """Changes a detector so that every second proposal in training is near a garment of its image."""
    import torch

    propose = model.rpn_head.loss_and_predict

    def loss_and_predict(levels, samples, proposal_cfg=None):
        losses, proposals = propose(levels, samples, proposal_cfg=proposal_cfg)
        for found, sample in zip(proposals, samples, strict=True):
            boxes = sample.gt_instances.bboxes
            boxes = boxes[torch.arange(len(found.bboxes[::2])) % len(boxes)]
            sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
            found.bboxes[::2] = boxes + 0.05 * sides * torch.rand_like(boxes)
        return losses, proposals

    model.rpn_head.loss_and_predict = loss_and_predict
    return model


def predictions(args) -> dict:
    """Makes predictions for the validation split as a trained model would give them, and keeps what the metrics keep.

    Every image has the same number of boxes. Part i of n holds the images that process i of n would test; a part that
    is there is left as it is.
    """
    folder = args.dir / 'predictions'
    folder.mkdir(exist_ok=True)
    with ProcessPoolExecutor(usable_cores(), multiprocessing.get_context('spawn')) as pool:
        list(pool.map(partial(_predict_part, args), range(args.processes)))
    return {f'bytes_of_{kind}': sum(path.stat().st_size for path in folder.glob(f'*.{kind}')) for kind in METRICS}


def _predict_part(args, part: int) -> None:
    from mmdf2.datasets.prepare import open_or_prepare

    paths = {name: args.dir / 'predictions' / f'{part}.{name}' for name in METRICS}
    if all(path.exists() for path in paths.values()):
        return
    store = open_or_prepare(args.dir / 'deepfashion2', 'validation')
    metrics = build_metrics(args, None)
    for row in range(part, len(store), args.processes):
        sample = _predicted(store.image(row), args.boxes)
        for metric in metrics.values():
            metric.process(None, [sample])
    for name, metric in metrics.items():
        with open_for_replacement(paths[name], 'wb', durable=False) as file:
            pickle.dump(metric.results, file)


METRICS = ('DeepFashion2Metric', 'RetrievalMetric')


def build_metrics(args, prefix: Path | None) -> dict:
    """The two metrics by name, with subsets; with a prefix they write result files."""
    import mmdf2.evaluation.metrics as classes

    options = {'subsets': True, 'outfile_prefix': None if prefix is None else str(prefix)}
    return {name: getattr(classes, name)(str(args.dir / 'deepfashion2'), **options) for name in METRICS}


def _predicted(record, boxes: int) -> dict:
    """A data sample with detections near the items of an image and others anywhere, and embeddings near identities."""
    from mmdf2.categories import identity_code

    rng = np.random.default_rng((record.image_id, 3))
    size, count = (record.height, record.width), max(boxes, len(record.items))
    found = made_split.found_items(rng, record.items, size, count)
    labels, scores, corners, masks, landmarks = (list(column) for column in zip(*found, strict=True))
    corners = np.array(corners)
    corners[:, 2:] += corners[:, :2]
    embeddings = rng.standard_normal((count, EMBED_DIMS))
    annotated = 0.7 * rng.standard_normal((len(record.items), EMBED_DIMS))
    for row, item in enumerate(record.items):
        centre = np.random.default_rng(max(0, identity_code(record.pair_id, item.style)))
        annotated[row] += centre.standard_normal(EMBED_DIMS)
        embeddings[row] = annotated[row] + 0.3 * embeddings[row]
    weight = np.stack([np.full(EMBED_DIMS, -1.0), np.full(EMBED_DIMS, 1.0)]) / EMBED_DIMS
    return {
        'img_id': record.image_id,
        'ori_shape': size,
        'pred_instances': {
            'bboxes': corners,
            'scores': scores,
            'labels': labels,
            'masks': masks,
            'keypoints': landmarks,
            'embeddings': embeddings,
        },
        'gt_box_instances': {'labels': [item.label for item in record.items], 'embeddings': annotated},
        'match_similarity': {'weight': weight, 'bias': np.array([1.0, -1.0])},
    }


def collection(args) -> dict:
    """Collects the predictions of several processes and evaluates them in the first, as tools/test.py does."""
    from mmengine.dist import barrier, get_rank
    from mmengine.logging import MMLogger

    MMLogger.get_instance('rehearsal', log_file=str(args.dir / 'runs' / 'collection.log'))
    numbers, figures = {}, {}
    metrics = build_metrics(args, args.dir / 'results' / 'results')
    for name, metric in metrics.items():
        metric.results = pickle.loads((args.dir / 'predictions' / f'{get_rank()}.{name}').read_bytes())
    size = len(list((args.dir / 'deepfashion2' / 'validation' / 'annos').iterdir()))
    for name, metric in metrics.items():
        clocks = {}
        metric.compute_metrics = partial(_timed, metric.compute_metrics, clocks)
        barrier()
        clocks['begin'] = _clocks()
        figures.update(metric.evaluate(size))
        clocks['end'] = _clocks()
        if get_rank() == 0:
            collecting, evaluating = (
                [after - before for before, after in zip(clocks[first], clocks[last], strict=True)]
                for first, last in (('begin', 'collected'), ('collected', 'end'))
            )
            numbers[name] = {
                'collection_seconds': collecting[0],
                'collection_cpu_seconds': collecting[1],
                'memory_when_collected': clocks['collected'][2],
                'evaluation_seconds': evaluating[0],
                'evaluation_cpu_seconds': evaluating[1],
                'memory': peak_memory(),
            }
    if get_rank() == 0:
        _keep_figures(args, figures)
    return numbers


def _timed(compute, clocks: dict, results: list) -> dict:
    clocks['collected'] = _clocks()
    return compute(results)


def _clocks() -> tuple[float, float, int]:
    """Seconds, CPU seconds and peak memory so far."""
    return time.perf_counter(), time.process_time(), peak_memory()


def evaluation(args) -> dict:
    """Evaluates the predictions with one metric in one process, with all cores; without result files."""
    results = []
    for path in sorted((args.dir / 'predictions').glob(f'*.{args.metric}')):
        results += pickle.loads(path.read_bytes())
    before = _clocks()
    figures = build_metrics(args, None)[args.metric].compute_metrics(results)
    seconds, cpu_seconds, memory = _clocks()
    _keep_figures(args, figures)
    return {
        'evaluation_seconds': seconds - before[0],
        'evaluation_cpu_seconds': cpu_seconds - before[1],
        'memory_before': before[2],
        'memory': memory,
    }


def _keep_figures(args, figures: dict) -> None:
    """Keeps the figures of the first evaluation; those of a later one must be the same."""
    path = args.dir / 'figures.json'
    with locked(args.dir / '.figures.lock'):
        kept = json.loads(path.read_text()) if path.exists() else {}
        # Texts are compared, since NaN is not equal to itself.
        wrong = [name for name, value in figures.items() if repr(kept.get(name, value)) != repr(value)]
        if wrong:
            name = wrong[0]
            raise SystemExit(f'{len(wrong)} figures differ from {path}: {name} was {kept[name]}, now {figures[name]}')
        with open_for_replacement(path) as file:
            json.dump({**kept, **figures}, file, indent=1)


def resident_memory() -> int:
    """The resident memory of this process at this moment, in bytes."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


STEPS = (data, config, opening, sampler, loading, full_size, predictions, collection, evaluation)


def main() -> None:
    """Runs one step and prints its numbers; in several processes, the first one prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('step', choices=[step.__name__ for step in STEPS])
    parser.add_argument('--dir', type=Path, required=True)
    parser.add_argument('--scale', type=float, required=True)
    parser.add_argument('--processes', type=int, required=True)
    parser.add_argument('--boxes', type=int, required=True)
    parser.add_argument('--metric', choices=METRICS)
    parser.add_argument('--distributed', action='store_true')
    args = parser.parse_args()
    step = next(step for step in STEPS if step.__name__ == args.step)
    if not args.distributed:
        print(json.dumps(step(args)))
        return
    # Imported here, because steps that make data need no torch.
    from mmdf2.engine.processes import TIMEOUT, process_group

    with process_group(TIMEOUT):
        numbers = step(args)
    if os.environ['RANK'] == '0':
        print(json.dumps(numbers))


if __name__ == '__main__':
    main()
