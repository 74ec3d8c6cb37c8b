"""From a command line to a runner's config, the same for training and testing."""

import argparse
import difflib
import inspect
import os
import traceback
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from mmdf2.command_line import UserError
from mmdf2.engine.processes import LAUNCH_REMEDY, TIMEOUT

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
# The key of a config by which training may begin with what fits of another model's weights, those of load_from.
OTHER_MODEL = 'load_from_other_model'
# Keys of a config's first level that its runner or our tools look for beside the arguments of Runner.
_OTHER_KEYS = {'auto_scale_lr', 'data_command', 'data_root', 'find_unused_parameters', 'model_wrapper_cfg', OTHER_MODEL}


class _ConfigOptions(DictAction):
    """MMEngine's action for KEY=VALUE, which names an argument that it cannot take apart."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (ValueError, AssertionError):
                raise UserError(
                    f'--cfg-options {value}: write KEY=VALUE, such as train_dataloader.batch_size=4, and a list as '
                    'KEY="[1,2]".'
                ) from None


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that MMDetection's tools, ``mim`` and torch's launchers give to both tools."""
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config: a.b=value, or a.b="[1,2]" for a list',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started the processes')
    # The spelling that torch.distributed.launch uses depends on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config that ``args`` names, and changes it as they and the number of processes say.

    Args:
        args: Parsed arguments of :func:`add_common_arguments`, and ``config``.

    Raises:
        FileNotFoundError: There is no such config.
        UserError: The config cannot be read, an option does not fit it, or no launcher started this process.
        ValueError: The launcher cannot start processes on a machine without an accelerator.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = read_config(args.config)
    config.launcher = args.launcher
    if args.cfg_options:
        change_config(config, args.cfg_options)
    if args.work_dir:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if config.get('randomness', {}).get('deterministic'):
        # Older releases of torch refuse matrix products on GPUs without it; cuBLAS reads it when it starts.
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    if args.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(LAUNCH_REMEDY)
    if args.launcher != 'none':
        _set_timeout(config)
        if get_device() == 'cpu':
            _distribute_on_cpu(config)
    return config


def read_config(path) -> Config:
    """Reads a config file.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file, or one that it inherits, is wrong, or that one is missing; the message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder; give the path of a config file.')
    if not path.is_file():
        raise FileNotFoundError(f'there is no config {path}.{_similar_names(path)}')
    if not (content := path.read_bytes()).strip():
        raise UserError(f'{path} is empty ({len(content)} bytes); give the path of a config file.')
    try:
        return Config.fromfile(str(path))
    except Exception as error:  # a config is a program, which can fail in any way
        culprit, line = _place_in_config(error, path)
        what = f'{culprit}, line {line}' if line else str(culprit)
        chain = '' if culprit.resolve() == path.resolve() else f' (inherited by {path})'
        if isinstance(error, FileNotFoundError) and not culprit.is_file():
            raise UserError(f'{path} inherits {culprit}, which does not exist; correct its _base_.') from error
        raise UserError(
            f'{what}{chain} is not a valid config: {type(error).__name__}: {_first_line(error)}; correct it.'
        ) from error


def change_config(config: Config, options: dict) -> None:
    """Changes settings of a config as ``--cfg-options`` says.

    Args:
        config: The config to change.
        options: Key with dots -> value.

    Raises:
        UserError: A key leads nowhere, or a value has another type than the one that it replaces.
    """
    known = {*config, *inspect.signature(Runner.__init__).parameters, *_OTHER_KEYS} - {'self'}
    for key, value in options.items():
        first = key.split('.')[0]
        if first not in known:
            close = difflib.get_close_matches(first, known, n=1)
            hint = f'did you mean {close[0]}?' if close else 'correct the key.'
            raise UserError(f'--cfg-options {key}: the config has no {first}; {hint}')
        _check_type(key, _setting(config, key), value)
        try:
            config.merge_from_dict({key: value})
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
            raise UserError(
                f'--cfg-options {key}: the config has no such key: {_first_line(error)[:200]}; correct the key.'
            ) from error


def _setting(config, key: str):
    """The present value of a key with dots; None where there is none."""
    value = config
    for part in key.split('.'):
        if isinstance(value, (list, tuple)) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, (dict, Config)):
            value = value.get(part)
        else:
            return None
    return value


def _check_type(key: str, before, value) -> None:
    """Refuses text for a number and the like; None, lists and keys that are new may take the place of anything."""
    if before is None or value is None:
        return
    kinds = {'a number': (int, float), 'a text': str, 'a dict': dict}
    wanted = next((name for name, types in kinds.items() if isinstance(before, types)), None)
    wanted = 'True or False' if isinstance(before, bool) else wanted
    fits = {
        'a number': isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool),
        'True or False': isinstance(value, bool),
        'a text': isinstance(value, (str, list, tuple)),
        'a dict': isinstance(value, dict),
    }
    if wanted and not fits[wanted]:
        shown = 'several settings' if isinstance(before, dict) else repr(before)
        remedy = f'name one of them, as {key}.NAME=VALUE' if isinstance(before, dict) else f'give {wanted}'
        raise UserError(f'--cfg-options {key}={value}: the config has {shown} there; {remedy}.')


def _place_in_config(error: Exception, path: Path) -> tuple[Path, int | None]:
    """The config file in which an error lies, and its line, as far as that can be told."""
    place, line = path, None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in ('_file2dict', '_parse_lazy_import', '_is_lazy_import'):
            place = Path(frame.f_locals.get('filename') or place)
        elif Path(frame.f_code.co_filename) == place:
            line = number
    if isinstance(error, SyntaxError):
        line = error.lineno
    return Path(os.path.relpath(place)) if not path.is_absolute() else Path(os.path.normpath(place)), line


def _similar_names(path: Path) -> str:
    """A sentence with the config, beside a missing one or in the installed package, whose name is nearest."""
    packaged = Path(__file__).parents[1] / '.mim' / 'configs'
    names = {found.name: found for found in [*packaged.glob('**/*.py'), *path.parent.glob('*.py')]}
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    if close:
        return f' Did you mean {names[close[0]]}?'
    return ' Give the path of a config file, such as those in the folder configs of mmdf2.'


def _first_line(error: Exception) -> str:
    # str() of a KeyError adds quotes, and str() of a SyntaxError the place, which is told apart.
    text = error.args[0] if isinstance(error, (KeyError, SyntaxError)) and error.args else error
    return (str(text).strip().splitlines() or ['no reason given'])[0].rstrip('.')


def _set_timeout(config: Config) -> None:
    """Sets how long processes wait for each other, unless the config does; MMEngine passes it to torch.distributed."""
    group = (config.get('env_cfg') or {}).get('dist_cfg') or {}
    if group.get('timeout') is None:
        config.merge_from_dict({'env_cfg.dist_cfg.timeout': TIMEOUT})


def _distribute_on_cpu(config: Config) -> None:
    """Makes processes work on CPUs; MMEngine would choose a GPU for each one, whatever the backend."""
    if config.launcher != 'pytorch':
        raise ValueError(
            f'--launcher {config.launcher} needs a GPU for each process; on CPUs start the tool with '
            "'torchrun --nproc-per-node N' and --launcher pytorch"
        )
    config.merge_from_dict({'env_cfg.dist_cfg': {'backend': 'gloo'}})
    wrapper = {'type': 'MMDistributedDataParallel', 'broadcast_buffers': False, 'device_ids': None}
    wrapper['find_unused_parameters'] = config.get('find_unused_parameters', False)
    config.model_wrapper_cfg = {**wrapper, **(config.get('model_wrapper_cfg') or {})}
