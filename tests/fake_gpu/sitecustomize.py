"""Makes every Python that has this folder in PYTHONPATH believe that torch sees a GPU, on which nothing can compute."""

import setuptools  # noqa: F401  It warns when it comes after distutils, which torch imports.
import torch

FACTS = {
    'is_available': True,
    'device_count': 1,
    'current_device': 0,
    'get_device_capability': (9, 0),
    'get_device_name': 'NVIDIA Made-up',
    'synchronize': None,
    'reset_peak_memory_stats': None,
    'max_memory_allocated': 0,
}

for name, value in FACTS.items():
    setattr(torch.cuda, name, lambda *_, value=value, **__: value)


def without_gpu(function, name):
    """The function, which does not hear of a device that is a GPU."""

    def call(*arguments, **options):
        if is_gpu(options.get('device')):
            options['device'] = 'cpu'
        return function(*(a for a in arguments if name != 'to' or not is_gpu(a)), **options)

    return call


def is_gpu(target):
    return isinstance(target, (str, torch.device)) and torch.device(target).type == 'cuda'


torch.zeros = without_gpu(torch.zeros, 'zeros')
torch.nn.Module.to = without_gpu(torch.nn.Module.to, 'to')
