"""Steps of check_gpu.py that run in a process of their own: facts about the machine, and made data with its configs.

python scripts/gpu_steps.py facts OUT.json
python scripts/gpu_steps.py prepare FOLDER --config CONFIG ...
"""

import argparse
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ('torch', 'numpy', 'opencv-python-headless', 'pycocotools', 'faiss-cpu', 'safetensors', 'pillow')
# Names of the OpenMMLab trio in both lines.
TRIO = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'mmengine', 'mmcv', 'mmdet')
# The usual size of DeepFashion2's images is 468 x 702 pixels.
REAL_SIZE = 702


def facts(args) -> None:
    """Writes versions and what torch and the driver say about the machine; fails where the operators do not run."""
    import torch  # slow to import; the other command may not need it

    from mmdf2.ops import build_info
    from mmdf2.stack import require_gpu_operators, unused_gpu

    found = {
        'python': platform.python_version(),
        'system': platform.platform(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_GiB': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30,
        'commit': output_of('git', '-C', ROOT, 'log', '-1', '--format=%H %cI'),
        'changes': output_of('git', '-C', ROOT, 'status', '--short', '--untracked-files=no'),
        'libraries': {name: version for name in (*LIBRARIES, *TRIO) if (version := version_of(name))},
        'torch_cuda': torch.version.cuda,
        'torch_architectures': torch.cuda.get_arch_list(),
        'cudnn': torch.backends.cudnn.version(),
        'gpus': [describe_gpu(number) for number in range(torch.cuda.device_count())],
        'driver': output_of('nvidia-smi'),
        'topology': output_of('nvidia-smi', 'topo', '-m'),
        'nvcc': output_of('nvcc', '--version'),
        'operators': build_info(),
    }
    if torch.cuda.is_available():
        found['nccl'] = '.'.join(map(str, torch.cuda.nccl.version()))
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version  # after torch, whose libraries it needs

    found['mmcv_operators'] = {'cuda': get_compiling_cuda_version(), 'compiler': get_compiler_version()}
    write(args.out, found)
    print(json.dumps(found, indent=1))
    if message := unused_gpu():
        print(message)
    if args.device == 'cuda':
        require_gpu_operators('cuda')


def describe_gpu(number: int) -> dict:
    import torch  # slow to import

    properties = torch.cuda.get_device_properties(number)
    return {
        'name': properties.name,
        'capability': f'{properties.major}.{properties.minor}',
        'memory_GiB': properties.total_memory / 2**30,
        'multiprocessors': properties.multi_processor_count,
    }


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def output_of(*command) -> str | None:
    """What a program prints; None if it is not there, fails or does not end."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def prepare(args) -> None:
    """Draws images and writes what trains and tests on them: ``config.py``, ``few.py`` and the first weights."""
    import torch  # slow to import, and so are the parts of mmdf2 that need it
    from mmengine.registry import MODELS, init_default_scope

    from mmdf2.command_line import foreign_lines_dropped
    from mmdf2.engine import read_config
    from mmdf2.files import path_beside
    from mmdf2.wardrobe import make_wardrobe

    data, few = args.folder / 'images', args.folder / 'few'
    make_wardrobe(data, args.identities, validation_identities=max(2, args.identities // 3), size=args.size)
    # Five images of each identity.
    make_wardrobe(few, args.few, seed=1, size=args.size)
    config = read_config(args.config)
    with foreign_lines_dropped():
        init_default_scope(config.get('default_scope', 'mmdet'))
        # The weights of the backbone would be downloaded.
        config.model.backbone.init_cfg = None
        adapt(config, data, args)
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        calibrate(model.to(args.device), config)
    with path_beside(args.folder / 'start.pth') as path:
        torch.save({'state_dict': model.cpu().state_dict(), 'meta': {}}, path)
    config.load_from = str(args.folder / 'start.pth')
    config.dump(args.folder / 'config.py')
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.dataset.data_root = str(few)
    config.dump(args.folder / 'few.py')


def adapt(config, data_root: Path, args) -> None:
    """Points a config at made data, without validation in training, for one epoch, and logs every iteration."""
    config.data_root = str(data_root)
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.dataset.data_root = str(data_root)
        if args.batch_size:
            loader.batch_size = args.batch_size
        for transform in loader.dataset.pipeline:
            if args.scale and transform['type'] == 'mmdf2.Resize':
                transform['scale'] = tuple(args.scale)
    for metric in config.test_evaluator:
        metric.data_root = str(data_root)
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.train_cfg.pop('val_interval', None)
    config.train_cfg.max_epochs = 1
    # Weights that were not trained cannot take the steps of a warmed-up schedule.
    config.param_scheduler = None
    config.optim_wrapper.optimizer.lr = 2e-4
    config.default_hooks.logger.interval = 1
    config.randomness = {'seed': 0}
    config.log_processor.window_size = 1


def calibrate(model, config, batches: int = 3) -> None:
    """Sets the statistics of batch norms to those of made images.

    Those of weights that were not trained, mean 0 and variance 1, let activations grow beyond the range of float16.
    """
    import torch  # slow to import
    from mmengine.runner import Runner

    norms = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    model.train()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    with torch.no_grad():
        for _, data in zip(range(batches), Runner.build_dataloader(config.train_dataloader, seed=0), strict=False):
            model.extract_feat(model.data_preprocessor(data, training=True)['inputs'])
    for norm in norms:
        norm.momentum = 0.1


def write(path: Path, value) -> None:
    from mmdf2.files import write_json  # PYTHONPATH names the checkout when check_gpu.py starts this

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser('facts')
    command.add_argument('out', type=Path)
    command.set_defaults(run=facts)
    preparing = commands.add_parser('prepare')
    preparing.add_argument('folder', type=Path)
    preparing.add_argument('--config', type=Path, required=True)
    preparing.add_argument('--identities', type=int, default=60, help='identities to train on, with 5 images each')
    preparing.add_argument('--few', type=int, default=2, help='identities of the data for a few steps')
    preparing.add_argument('--size', type=int, default=REAL_SIZE, help='longer side of the images, in pixels')
    preparing.add_argument('--scale', type=int, nargs=2, help="size of the network's input, instead of the config's")
    preparing.add_argument('--batch-size', type=int, help="images per batch, instead of the config's")
    preparing.set_defaults(run=prepare)
    for each in (command, preparing):
        each.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    return parser.parse_args()


if __name__ == '__main__':
    arguments = parse_args()
    arguments.run(arguments)
