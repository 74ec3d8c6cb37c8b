"""What the numbers of rehearsal.py would be in a run on GPUs, each with what it stands on."""

from collections.abc import Iterator
from dataclasses import dataclass

# Images per second of MMDetection's Mask R-CNN R-50-FPN on 8 V100 GPUs, by the page "Benchmarks" of detectron2's
# documentation.
MASK_RCNN_RATE, MASK_RCNN_GPUS = 53, 8
IMAGES_PER_GPU, EPOCHS, MOST_BOXES = 2, 12, 100
VALIDATION_IMAGES = 32_153

# What a number is, the number with its unit, and what it stands on.
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Machine:
    """The machine that is planned for.

    Attributes:
        gpus: Number of GPUs, one per process.
        iteration_seconds: Seconds per training iteration, if they are known.
    """

    gpus: int
    iteration_seconds: float | None


def plan_rows(steps: dict, recipe: dict, machine: Machine) -> list[Row]:
    """Plans a run from the steps that were measured; numbers that need another step are left out.

    Args:
        steps: Step -> name of the run -> its numbers.
        recipe: ``scale``, ``processes`` and ``boxes`` of the rehearsal.
        machine: The machine that is planned for.
    """
    runs = {name: run for step in steps.values() for name, run in step.items()}
    rows: list[Row] = []
    for needed, make in _PARTS:
        found = [next((run for name, run in runs.items() if name.startswith(start)), None) for start in needed]
        if None not in found:
            rows += make(*found, recipe=recipe, machine=machine)
    return rows


def _preparation(made, found, opened, recipe, machine) -> Iterator[Row]:
    stands = 'measured: CPU seconds, most of which the cores share; a slow disk takes longer'
    yield 'preparing both stores, once', f'at most {duration(made["cpu_seconds"])}', stands
    yield 'finding the stores up to date', duration(found['cpu_seconds']), 'measured: CPU seconds'
    yield 'size of the stores', size(opened['bytes_of_stores']), 'measured'
    yield 'opening the training store, in every process', duration(opened['open_seconds']), 'measured: CPU seconds'


def _sampling(alone, recipe, machine) -> Iterator[Row]:
    stands = 'measured: CPU seconds; every process draws the whole order, and the batches are those of one process'
    yield "an epoch's order, in every process", duration(alone['epoch_seconds']), stands
    count = f'{_iterations(alone, machine):,}'
    yield 'iterations per epoch', count, f'counted; {IMAGES_PER_GPU} images per GPU, a third of the images by users'


def _training(alone, loading, paper, recipe, machine) -> Iterator[Row]:
    seconds, stands = _iteration(paper, machine)
    yield 'one iteration', duration(seconds), stands
    needed, rate = IMAGES_PER_GPU / seconds, 1 / loading['cpu_seconds_per_image_0']
    stands = (
        f'measured: a worker loads {rate:.0f} images per CPU second, a GPU needs {needed:.0f}; the config has 2 workers'
    )
    yield 'workers that keep a GPU busy', f'{needed / rate:.2f}', stands
    epoch = _iterations(alone, machine) * seconds
    yield 'one epoch of training', duration(epoch), 'iterations times seconds per iteration'
    yield f'{EPOCHS} epochs of training', duration(EPOCHS * epoch), 'the same'
    images = -(-VALIDATION_IMAGES // machine.gpus)
    stands = f'assumed: a third of the time that training takes per image; {images:,} images per GPU'
    yield 'predicting the validation split', duration(images * seconds / IMAGES_PER_GPU / 3), stands
    stands = 'measured on the CPU in float32 with 128 positive RoIs per image; --amp takes less, CUDA itself adds to it'
    yield 'GPU memory of an iteration', size(paper['iteration_memory']), stands
    yield 'a checkpoint', size(paper['checkpoint_bytes']), 'counted: weights and momentum in float32; three are kept'


def _host(train, recipe, machine) -> Iterator[Row]:
    memory = train['together'] / recipe['processes'] * machine.gpus
    stands = 'measured with a narrow model and 2 workers per process; CUDA and the full model come on top'
    yield 'host memory of all processes in training', size(memory), stands


def _evaluation(made, collected, recipe, machine) -> Iterator[Row]:
    boxes = recipe['boxes']
    many = f'; {MOST_BOXES} boxes: about {MOST_BOXES / boxes:.1f} times as much' if boxes < MOST_BOXES else ''
    parts = [part for name, part in collected.items() if name.endswith('Metric')]
    stands = f'measured with {boxes} boxes per image, between {recipe["processes"]} processes{many}'
    written = sum(value for name, value in made.items() if name.startswith('bytes_of'))
    yield 'predictions written to .dist_test of the working directory', size(written), stands
    yield 'collecting them', duration(sum(part['collection_cpu_seconds'] for part in parts)), stands
    seconds = [part['evaluation_cpu_seconds'] for part in parts]
    stands = f'measured with {boxes} boxes per image, thirteen columns and result files: CPU seconds{many}'
    yield 'evaluating them in the first process', duration(sum(seconds)), stands
    stands = f'the same, of the metric that takes longer{many}; env_cfg.dist_cfg.timeout of the config is the limit'
    yield 'so long the other processes wait', duration(max(seconds)), stands
    stands = f'measured with {boxes} boxes per image{many}'
    yield 'memory of the first process', size(max(part['memory'] for part in parts)), stands


def _files(read, recipe, machine) -> Iterator[Row]:
    stands = f'measured with {recipe["boxes"]} boxes per image'
    yield 'result files of --dump', size(sum(read['bytes_of_results'].values())), stands
    yield (
        'tools/evaluate.py --subsets on them',
        duration(read['cpu_seconds']),
        f'{stands}: CPU seconds; {size(read["largest"])} of memory',
    )


# The beginnings of the names of the runs that a part of the plan needs, and the part.
_PARTS = (
    (('make the stores', 'find them', 'open an'), _preparation),
    (('order of an epoch, 1 process',), _sampling),
    (('order of an epoch, 1 process', 'load batches', "the paper's model"), _training),
    (('train, ',), _host),
    (('make predictions', 'collect and evaluate'), _evaluation),
    (('evaluate the result files',), _files),
)


def _iterations(alone: dict, machine: Machine) -> int:
    return -(-alone['images_per_process'] // (IMAGES_PER_GPU * machine.gpus))


def _iteration(paper: dict, machine: Machine) -> tuple[float, str]:
    if machine.iteration_seconds is not None:
        return machine.iteration_seconds, 'given'
    ratio = paper['operations'] / paper['operations_of_mask_rcnn']
    seconds = IMAGES_PER_GPU * MASK_RCNN_GPUS / MASK_RCNN_RATE * ratio
    return seconds, (
        f'assumed: {ratio:.1f} times as long as Mask R-CNN (operations of a forward pass with 128 positive RoIs per '
        f'image, counted), which MMDetection trains with {MASK_RCNN_RATE} images/s on {MASK_RCNN_GPUS} V100 GPUs'
    )


def duration(seconds: float) -> str:
    """A time with a unit that fits."""
    for unit, length in (('h', 3600), ('min', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.1f} {unit}'
    return f'{seconds:.1f} s' if seconds >= 1 else f'{seconds:.2g} s'


def size(count: float) -> str:
    """A number of bytes with a unit that fits."""
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.0f} MB'
