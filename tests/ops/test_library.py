"""The compiled library: what it says of its build, and the errors when it is missing, damaged or of another build."""

import subprocess
import sys

import pytest
import torch

from mmdf2.ops import build_info, library


def test_build_info_tells_what_was_built():
    info = build_info()
    assert info['torch'] == torch.__version__
    assert info['compiler'].split()[0] in ('GCC', 'Clang', 'Apple')
    assert '-O3' in info['flags'] and 'march=native' not in info['flags']
    assert (info['cuda'] is None) == (info['architectures'] is None)
    assert info['cuda'] is None or torch.version.cuda is not None
    assert info['path'] == str(library.PATH)


def test_a_missing_library_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ImportError, match=r'(?s)there is no .*_C\.abi3\.so.*pip install --no-build-isolation'):
        library.load(tmp_path / '_C.abi3.so')


def test_a_library_for_another_torch_is_refused_before_it_is_loaded(tmp_path):
    running = torch.__version__
    other = '9' + running[1:]
    record, changed = (f'"torch": "{version}"'.encode() for version in (running, other))
    path = tmp_path / 'other.so'
    path.write_bytes(library.PATH.read_bytes().replace(record, changed))
    assert build_info(path)['torch'] == other
    with pytest.raises(ImportError) as caught:
        library.load(path)
    message = str(caught.value)
    assert f'{path} was built for torch {other}, but torch {running} is running' in message
    assert 'python setup.py build_ext --inplace' in message


def test_a_library_of_other_sources_is_refused_before_it_is_loaded(tmp_path):
    (tmp_path / 'cpu').mkdir()
    (tmp_path / 'cpu/search.cpp').write_text('// changed')
    with pytest.raises(ImportError) as caught:
        library.load(library.PATH, sources=tmp_path)
    message = str(caught.value)
    assert f'{library.PATH} was compiled from other sources than those in {tmp_path}' in message
    assert 'make install' in message


def test_the_digest_of_sources_knows_names_and_contents_of_what_is_compiled(tmp_path):
    digests = [library.digest_of_sources(tmp_path)]
    for name, content in [('a.cpp', '1'), ('b.h', '1'), ('b.h', '2')]:
        (tmp_path / name).write_text(content)
        digests.append(library.digest_of_sources(tmp_path))
    (tmp_path / 'extension.py').write_text('this file is no source')
    assert len(set(digests)) == 4 and library.digest_of_sources(tmp_path) == digests[-1]


@pytest.mark.parametrize('content', [b'', b'ELF', b'mmdf2-build-info:{"torch": '])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / 'broken.so'
    path.write_bytes(content)
    with pytest.raises(ImportError, match=r'(?s)broken\.so.*pip install'):
        library.load(path)


def test_a_library_that_does_not_load_is_refused(tmp_path):
    path = tmp_path / 'damaged.so'
    path.write_bytes(b'none' + library.PATH.read_bytes()[4:])
    with pytest.raises(ImportError, match=r'(?s)damaged\.so.*does not load.*pip install'):
        library.load(path)


def test_ops_import_with_torch_alone():
    code = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'mmengine', 'mmcv', 'mmdet', 'faiss', 'cv2', 'pycocotools', 'torchvision'}:
            raise ImportError(f'mmdf2.ops asked for {name}')

sys.meta_path.insert(0, Refuse())
import mmdf2.ops
"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
