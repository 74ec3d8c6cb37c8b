"""The CUDA kernels without a GPU: their own source run by the emulation, and compiled for every architecture."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from cuda_emulation import SOURCES, EmulatedSearch

sys.path.insert(0, str(SOURCES.parent))
from cuda_build import DEFAULT_ARCHITECTURES, NVCC_FLAGS, nvcc_architecture_flags

sys.path.pop(0)

KERNELS = sorted(SOURCES.glob('*.cu'))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def direct_form(query, gallery, weight):
    query, gallery, weight = (x.double() for x in (query, gallery, weight))
    return ((query[:, None] - gallery) ** 2 * weight).sum(-1)


def float32_product(query, gallery, weight):
    """The expanded form by torch in float32, except for the form of a row."""
    centre = (query.double().sum(0) + gallery.double().sum(0)) / (len(query) + len(gallery))
    query, gallery = query - centre.float(), gallery - centre.float()
    form = gallery.double() ** 2 @ weight.double()
    product = torch.addmm(form.float(), query * (-2 * weight), gallery.T)
    return (query.double() ** 2 @ weight.double())[:, None] + product.double()


@pytest.fixture(params=[True, False], ids=['tensor cores', 'float32'])
def emulation(request, emulated_libraries):
    return emulated_libraries[request.param]


@pytest.mark.parametrize(('width', 'offset'), [(256, 0.0), (256, 5.0), (2048, 0.0)])
def test_scores_have_the_error_of_float32(emulation, width, offset):
    """3xTF32 with truncated additions, against a matrix product in float32. One TF32 product is 100 times worse."""
    query, gallery = draw(64, width, seed=1) + offset, draw(200, width, seed=2) + offset
    weight = draw(width, seed=3)
    expected = direct_form(query, gallery, weight)
    error = np.abs(EmulatedSearch(emulation).expanded_scores(query, gallery, weight) - expected.numpy())
    float32_error = (float32_product(query, gallery, weight) - expected).abs()
    assert error.max() <= 2.5 * float32_error.max()
    assert np.sqrt((error**2).mean()) <= 2.5 * float32_error.square().mean().sqrt()


@pytest.mark.parametrize('weight_sign', [-1, 0, 1])
def test_scores_of_one_sign_stay_within_the_bound(emulation, weight_sign):
    """In sums of equal sign the truncations add up. The bound is that of csrc/error_bound.h."""
    width = 512
    query, gallery = draw(16, width, seed=1).abs(), -draw(130, width, seed=2).abs()
    weight = draw(width, seed=3) if weight_sign == 0 else weight_sign * draw(width, seed=3).abs()
    expected = direct_form(query, gallery, weight).numpy()
    error = np.abs(EmulatedSearch(emulation).expanded_scores(query, gallery, weight) - expected)
    centre = (query.double().sum(0) + gallery.double().sum(0)) / (len(query) + len(gallery))
    magnitudes = [((rows - centre) ** 2 @ weight.double().abs()).sqrt() for rows in (query, gallery)]
    scale = (magnitudes[0] + magnitudes[1].max()).numpy() ** 2
    assert (error <= ((width + 310) * 2.0**-24 * scale)[:, None]).all()


@pytest.mark.parametrize('multiprocessors', [1, 2, 7, 40])
def test_any_number_of_blocks_shares_the_tiles(emulation, multiprocessors):
    """300 queries and 900 items are 3 x 8 tiles, divided into runs that can end at any tile."""
    query, gallery, weight = draw(300, 20, seed=1), draw(900, 20, seed=2), draw(20, seed=3)
    search = EmulatedSearch(emulation, seed=multiprocessors, multiprocessors=multiprocessors)
    indices = search(query, gallery, weight, None, 9)[1]
    expected = direct_form(query, gallery, weight).topk(9).indices
    assert torch.equal(indices, expected)
    assert search.searched_again == 0


def test_the_order_of_threads_does_not_matter(emulation):
    query, gallery, weight = draw(9, 64, seed=1), draw(1500, 64, seed=2), draw(64, seed=3)
    gallery[700:1400] = gallery[:700]  # ties, which are removed from the lists in any order
    results = [EmulatedSearch(emulation, seed)(query, gallery, weight, None, 30) for seed in range(4)]
    for scores, indices in results[1:]:
        assert torch.equal(scores, results[0][0]) and torch.equal(indices, results[0][1])


@pytest.mark.parametrize('rows', [2, 3])
def test_one_query_and_many_agree(emulation, rows):
    """Up to two queries are searched by the direct form, and more of them by tiles."""
    query, gallery, weight = draw(rows, 40, seed=1), draw(800, 40, seed=2), draw(40, seed=3)
    scores, indices = EmulatedSearch(emulation)(query, gallery, weight, torch.tensor(0.25), 12)
    expected = torch.ops.mmdf2.pair_topk(query, gallery, weight, torch.tensor(0.25), 12)
    assert torch.equal(indices, expected[1])
    torch.testing.assert_close(scores, expected[0], rtol=1e-6, atol=1e-6)


def test_unproven_queries_are_counted(emulation):
    """With more near duplicates than candidates, no bound in float32 separates them."""
    query, weight = draw(4, 32, seed=1), -draw(32, seed=3).abs()
    gallery = query[:1] + 1e-4 * draw(700, 32, seed=2)
    search = EmulatedSearch(emulation)
    indices = search(query, gallery, weight, None, 20)[1]
    assert torch.equal(indices, direct_form(query, gallery, weight).topk(20).indices)
    assert search.searched_again > 0


@pytest.mark.skipif(shutil.which('nvcc') is None, reason='nvcc is not on PATH, so the CUDA sources are not compiled')
@pytest.mark.parametrize('source', KERNELS, ids=lambda path: path.stem)
def test_compiles_for_every_architecture(source, tmp_path):
    """No kernel may spill registers either: nvcc warns of it, and warnings are errors here."""
    flags = [*NVCC_FLAGS, '-std=c++17', '-Werror=all-warnings', '-Xptxas=-warn-spills', '--threads=2']
    architectures = nvcc_architecture_flags(DEFAULT_ARCHITECTURES)
    command = ['nvcc', *flags, *architectures, '-c', str(source), '-o', str(tmp_path / 'object.o')]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(shutil.which('nvcc') is None, reason='nvcc is not on PATH, so the CUDA sources are not compiled')
@pytest.mark.parametrize(('architecture', 'products'), [('75', False), ('80', True), ('90', True), ('120', True)])
def test_tensor_cores_are_used_where_they_are(architecture, products, tmp_path):
    ptx = tmp_path / 'kernels.ptx'
    source = SOURCES / 'collect_candidates.cu'
    command = ['nvcc', *NVCC_FLAGS, '-std=c++17', f'-arch=compute_{architecture}', '-ptx', str(source), '-o', str(ptx)]
    subprocess.run(command, check=True, capture_output=True)
    text = ptx.read_text()
    assert ('mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32' in text) == products
    assert ('cp.async' in text) == products
