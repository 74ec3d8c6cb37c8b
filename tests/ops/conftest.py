"""Every way in which pair_topk runs: compiled, out of torch operators, and CUDA's kernels, emulated and real."""

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
    """Libraries of csrc/cuda for the host, by whether they have tensor cores."""
    if find_compiler() is None:
        pytest.skip('no C++ compiler here to build the emulation of the CUDA kernels with')
    folder = tmp_path_factory.mktemp('emulation')
    flags = shlex.split(os.environ.get('CXXFLAGS', ''))  # scripts/sanitize.py has some
    return {tensor_cores: compile_emulation(folder, tensor_cores, flags) for tensor_cores in (True, False)}


def search_on_gpu(*arguments):
    """torch.ops.mmdf2.pair_topk of the GPU, for arguments of the CPU."""
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
    """pair_topk's operator: (query, gallery, weight_difference, bias_difference, k) to (scores, indices)."""
    if request.param.startswith('emulated'):
        libraries = request.getfixturevalue('emulated_libraries')
        return EmulatedSearch(libraries[request.param == 'emulated tensor cores'])
    return {'compiled': torch.ops.mmdf2.pair_topk, 'composite': pair_topk_composite, 'gpu': search_on_gpu}[
        request.param
    ]
