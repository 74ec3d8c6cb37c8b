"""Training and testing by a config; faults of the config and missing data become one sentence for the user."""

import contextlib
import difflib
import importlib
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import mmengine.registry
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner

from mmdf2.command_line import UserError, explain, output_held
from mmdf2.engine.checkpoints import CheckpointError, load_weights
from mmdf2.engine.processes import process_group
from mmdf2.engine.runner_config import OTHER_MODEL
from mmdf2.faults import FaultsInARow, predict_each
from mmdf2.stack import require_gpu_operators, unused_gpu

_BUILDING = Path(mmengine.registry.__file__).parent
_PACKAGE = Path(__file__).resolve().parents[1]


def run_training(config: Config) -> None:
    """Trains as a config says; raises what :func:`_run` raises."""
    _run(config, 'train')


def run_test(config: Config) -> dict[str, float]:
    """Tests as a config says and returns the metrics; raises what :func:`_run` raises."""
    return _run(config, 'test')


def _run(config: Config, method: str):
    """Builds a runner and calls its method, in a group of processes if the config has a launcher.

    The first 500 lines of the log describe the machine and the config. They appear on the screen when the first
    iteration begins, so that a fault that arises before stands alone. The log file has them at once.

    Raises:
        UserError: The config asks for something that does not exist or does not fit, or data or weights are missing, or
            another process has ended.
    """
    on_cpu = config.get('launcher', 'none') != 'none' and get_device() == 'cpu'
    with output_held() as screen, process_group(config.env_cfg.dist_cfg.timeout if on_cpu else None):
        return _build_and_call(config, method, screen)


def _build_and_call(config: Config, method: str, screen):
    # The runner is local to this function, so that it is garbage when the process leaves its group.
    try:
        runner = Runner.from_cfg(config)
        require_gpu_operators(get_device())
        if message := unused_gpu():
            runner.logger.warning(message)
        runner.register_hook(_ReleaseHook(screen), 'HIGHEST')
        runner.register_hook(_ModelFaultsHook(), 'HIGHEST')
        runner.register_hook(_WeightsHook(config, method == 'train'), 'HIGHEST')
        return getattr(runner, method)()
    except Exception as error:
        if screen.held:
            _raise_config_fault(error, config)
        raise


@contextlib.contextmanager
def config_faults_explained(config: Config) -> Iterator[None]:
    """Turns an error that the config causes, in a block that builds what it describes, into a UserError."""
    try:
        yield
    except Exception as error:
        _raise_config_fault(error, config)
        raise


class _ReleaseHook(Hook):
    """Releases the held output when the first loop begins."""

    def __init__(self, screen) -> None:
        self.screen = screen

    def before_train(self, runner) -> None:
        """Runs when everything has been built and loaded."""
        self.screen.release()

    before_test = before_val = before_train


class _ModelFaultsHook(Hook):
    """Lets testing go on after an image on which the model fails: it is named, and mmdf2's metrics leave it out.

    A batch on which the model fails is tried image by image. The error is raised when the model fails on 20 images in a
    row, or on as many as there are.
    """

    def before_test(self, runner) -> None:
        """Runs before the first batch of testing."""
        _guard(runner.model, 'test_step', len(runner.test_dataloader.dataset))

    def before_val(self, runner) -> None:
        """Runs before the first batch of validation."""
        _guard(runner.model, 'val_step', len(runner.val_dataloader.dataset))

    def after_test(self, runner) -> None:
        """Gives the model its own methods back, so that it is garbage when nobody else holds it."""
        for name in ('test_step', 'val_step'):
            vars(runner.model).pop(name, None)

    after_val = after_test


def _guard(model, name: str, images: int) -> None:
    """Replaces a method of the model that predicts a batch by one that survives images on which it fails."""
    step, faults = getattr(model, name), FaultsInARow(min(20, images))

    def guarded(data: dict) -> list:
        samples = data['data_samples']

        def predict(rows: range) -> list:
            whole = len(rows) == len(samples)
            return step(data if whole else {key: part[rows.start : rows.stop] for key, part in data.items()})

        found = predict_each(predict, range(len(samples)), faults)
        return [
            _left_out(sample, result) if isinstance(result, str) else result
            for sample, result in zip(samples, found, strict=True)
        ]

    setattr(model, name, guarded)


def _left_out(sample, reason: str):
    """Marks the data sample of an image on which the model failed, for the metrics, and names it in the log."""
    reason = f'{sample.get("img_path", "an image")}: {reason}'
    print_log(f'{reason}; it is left out of the figures', 'current', logging.WARNING)
    sample.set_metainfo({'unreadable': reason})
    return sample


class _WeightsHook(Hook):
    """Refuses the weights of another model; MMEngine would leave what it cannot find at random values.

    Training alone may begin with parts of another model, if the config says so; a test or a resumed run may not.
    """

    def __init__(self, config: Config, training: bool) -> None:
        self.source = config.get('load_from')
        self.other_model = config.get(OTHER_MODEL, False)
        self.training = training

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Runs before MMEngine, and its hook for averaged weights, take the weights."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        source = self.source or f'the last checkpoint in {runner.work_dir}'
        begins = self.training and not runner._resume
        if begins and self.other_model:
            runner.logger.warning(load_weights(model, checkpoint, source, other_model=True))
            return
        loop = runner._train_loop if self.training else runner._test_loop
        metainfo = getattr(loop.dataloader.dataset, 'metainfo', None) or {}
        try:
            load_weights(model, checkpoint, source, metainfo.get('classes'))
        except CheckpointError as error:
            if not begins:
                raise
            raise CheckpointError(f'{error}, or set {OTHER_MODEL}=True to begin with what fits of it') from error


def _raise_config_fault(error: Exception, config: Config) -> None:
    """Raises a UserError if the config is to blame for an error."""
    if message := _config_fault(error, config):
        raise UserError(message) from error


def _config_fault(error: Exception, config: Config) -> str | None:
    """The sentence about an error that arose in building; None for a bug or an error that explains itself."""
    name = config.filename or 'the config'
    if isinstance(error, FileNotFoundError) and (root := _missing_root(config)) and str(root) in str(error):
        return _missing_data(config, root, name, error)
    if (text := str(error.args[0]) if error.args else '') and isinstance(error, KeyError):
        match = re.match(r'(\S+) is not in the (.+?) registry', text)
        if match:
            return _unknown_type(match[1], match[2], name)
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    if isinstance(optimizer.get('type'), str) and OPTIMIZERS.get(optimizer['type']) is None:
        return _unknown_type(optimizer['type'], 'mmengine::optimizer', name)
    own = explain(error)
    if own is not None:
        return None if not isinstance(error, ValueError) else f'{name}: {own}'
    frames = [(frame, Path(frame.f_code.co_filename)) for frame, _ in traceback.walk_tb(error.__traceback__)]
    built = [frame for frame, path in frames if path.parent == _BUILDING and frame.f_code.co_name == 'build_from_cfg']
    mismatch = isinstance(error, TypeError) and re.search(r'unexpected keyword|missing \d+ required', str(error))
    if _PACKAGE in frames[-1][1].parents and not mismatch:
        return None
    if built:
        subject = f'{name}: {built[-1].f_locals.get("obj_type", "a part")} cannot be built with these settings'
    else:
        subject = f'{name} cannot be used'
    reason = (text or str(error)).strip().split('\n')[0].rstrip('.')[:300]
    return f'{subject}: {type(error).__name__}: {reason}. Correct the config or option; MMDF2_TRACEBACK=1 shows where.'


def _unknown_type(kind: str, registry: str, name: str) -> str:
    """The sentence about a type that no registry has, with the type whose name is nearest."""
    registry_name = registry.rpartition('::')[2]
    roots = [value for value in vars(mmengine.registry).values() if isinstance(value, mmengine.registry.Registry)]
    known: set[str] = set()
    for root in roots:
        if root.name == registry_name:
            _collect(root, known)
    close = difflib.get_close_matches(kind, known, n=1) or difflib.get_close_matches(
        kind.rpartition('.')[2], {entry.rpartition('.')[2] for entry in known}, n=1
    )
    hint = f' Did you mean {close[0]}?' if close else ' Correct the type, or import its module by custom_imports.'
    return f"{name}: there is no {registry_name} of type '{kind}' in the registry {registry}.{hint}"


def _collect(registry, known: set[str]) -> None:
    for location in registry._locations:
        # MMEngine swallows the ImportError of a part that cannot be imported. Then that error is the real fault.
        importlib.import_module(location)
    prefix = '' if registry.scope in ('mmengine', 'mmdet') else f'{registry.scope}.'
    known.update(f'{prefix}{entry}' for entry in registry.module_dict)
    for child in registry.children.values():
        _collect(child, known)


def _datasets(config: Config):
    for part in ('train', 'val', 'test'):
        dataset = (config.get(f'{part}_dataloader') or {}).get('dataset') or {}
        while 'dataset' in dataset:
            dataset = dataset['dataset']
        yield dataset


def _missing_root(config: Config) -> Path | None:
    """The first folder of a dataset, or of its split, that does not exist."""
    for dataset in _datasets(config):
        if dataset.get('data_root'):
            for folder in (Path(dataset['data_root']), Path(dataset['data_root'], dataset.get('split') or '')):
                if not folder.is_dir():
                    return Path(dataset['data_root'])
    return None


def _missing_data(config: Config, root: Path, name, error: FileNotFoundError) -> str:
    """The sentence about a missing dataset, with the command that makes it if the config has a ``data_command``."""
    command = config.get('data_command')
    if not command:
        return f'{name}: {explain(error)}. Put or link the dataset there, or change data_root in the config.'
    tool, *arguments = shlex.split(command)
    script = Path(sys.argv[0]).parent
    start = f'mim run mmdf2 {tool}' if '.mim' in script.parts else f'python {script / tool}.py'
    made_by = f'{start} --out {shlex.quote(str(root))} {shlex.join(arguments)}'
    return f'{name}: {explain(error).split(";")[0]}. This command makes the dataset:\n    {made_by}'
