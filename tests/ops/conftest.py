"""Every way in which pair_topk runs: compiled, composed of torch operators, and as CUDA kernels, emulated or real."""

import os
import shlex

import pytest
import torch
from cuda_emulation import EmulatedSearch, compile_emulation, find_compiler

from mmdf2.ops import build_info
from mmdf2.ops.composite import pair_topk_composite

NO_GPU = not torch.cuda.is_available() or build_info()['cuda'] is None


@pytest.fixture(scope='session')
def emulated_libraries(tmp_path_factory):
    """The kernels of csrc/cuda compiled for the host: True -> a library with tensor cores, False -> one without."""
    if find_compiler() is None:
        pytest.skip('no C++ compiler here to build the emulation of the CUDA kernels with')
    folder = tmp_path_factory.mktemp('emulation')
    flags = shlex.split(os.environ.get('CXXFLAGS', ''))  # set by scripts/sanitize.py
    return {tensor_cores: compile_emulation(folder, tensor_cores, flags) for tensor_cores in (True, False)}


def search_on_gpu(*arguments):
    """Runs torch.ops.mmdf2.pair_topk on the GPU, with arguments and results on the CPU."""
    moved = [value.cuda() if isinstance(value, torch.Tensor) else value for value in arguments]
    return tuple(result.cpu() for result in torch.ops.mmdf2.pair_topk(*moved))


@pytest.fixture(
    params=[
        'compiled',
        'composite',
        'emulated tensor cores',
        'emulated float32',
        pytest.param('gpu', marks=pytest.mark.skipif(NO_GPU, reason='no GPU here, or mmdf2.ops is built without CUDA')),
    ]
)
def search(request):
    """The operator pair_topk: (query, gallery, weight_difference, bias_difference, k) -> (scores, indices)."""
    if request.param.startswith('emulated'):
        libraries = request.getfixturevalue('emulated_libraries')
        return EmulatedSearch(libraries[request.param == 'emulated tensor cores'])
    return {'compiled': torch.ops.mmdf2.pair_topk, 'composite': pair_topk_composite, 'gpu': search_on_gpu}[
        request.param
    ]
