"""JSON lists, read one entry at a time in any layout and window, and written completely or not at all."""

import json

import pytest

from mmdf2.evaluation.files import json_list
from mmdf2.evaluation.files.json_list import read_entries, read_lists, write_results
from mmdf2.evaluation.records import EvaluationError

VALUES = [
    {},
    {'id': 1, 'text': 'braces } ] , [ { in "quotes" and \\ and \n and ü and 日本'},
    {'nested': {'list': [1, [2, {'x': None}]], 'number': -1.5e-7}, 'true': True},
    {'long': list(range(200))},
    {'id': 12345678901234567890},
]
LAYOUTS = [{}, {'indent': 2}, {'indent': 0}, {'separators': (',', ':')}, {'ensure_ascii': False}]


@pytest.fixture(params=[1, 7, 64, 1 << 22], name='window')
def fixture_window(request, monkeypatch):
    monkeypatch.setattr(json_list, '_CHUNK', request.param)


@pytest.mark.usefixtures('window')
@pytest.mark.parametrize('layout', LAYOUTS)
def test_reads_what_json_reads(tmp_path, layout):
    path = tmp_path / 'list.json'
    path.write_text('\n \t' + json.dumps(VALUES, **layout) + '\r\n\n', encoding='utf-8')
    found = list(read_entries(path))
    assert [entry.value for entry in found] == VALUES
    assert [entry.number for entry in found] == list(range(len(VALUES)))


@pytest.mark.usefixtures('window')
def test_lines_are_those_that_entries_begin_on(tmp_path):
    path = tmp_path / 'list.json'
    path.write_text('[\n{"a": 1}, {"a":\n2},\n\n\n{"a": "x"}\n]')
    assert [entry.line for entry in read_entries(path)] == [2, 2, 6]


@pytest.mark.usefixtures('window')
def test_lists_of_an_object_in_any_order_between_other_things(tmp_path):
    path = tmp_path / 'object.json'
    path.write_text(json.dumps({'info': {'images': [1]}, 'b': VALUES, 'x': [[], 12, 'a']})[:-1] + ', "a": [{}]}')
    found = [(name, entry.value) for name, entry in read_lists(path, ('a', 'b'))]
    assert found == [*(('b', value) for value in VALUES), ('a', {})]


@pytest.mark.usefixtures('window')
@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', r'line 1: expected a list of objects, .* got the end of the file'),
        ('{"a": 1}', r'line 1: expected a list of objects, which begins with \[, got '),
        ('[{"a": 1}', r'line 1: expected a comma or \] after 1 entries, got the end of the file'),
        ('[\n{"a": 1}\n{"a": 2}]', r'line 3: expected a comma or \] after 1 entries, got '),
        ('[{"a": 1},\n{"a": [1, 2', r'line 2, entry 1: not JSON: the file ends within it'),
        ('[{"a": 1},\n{"a": "x', r'line 2, entry 1: not JSON: '),
        ('[{"a": 1},\n{"a": yes}]', r'line 2, entry 1: not JSON: '),
        ('[{"a": 1},\n7]', r'line 2, entry 1: an object is needed, got 7'),
        ('[{"a": 1},]', r'line 1, entry 1: not JSON: '),
        ('[{"a": 1}] []', r'line 1: expected nothing after the list, got '),
        ('[' + '[' * 100_000, r'line 1, entry 0: not JSON: '),
    ],
)
def test_malformed_files(tmp_path, text, message):
    path = tmp_path / 'broken.json'
    path.write_text(text)
    with pytest.raises(EvaluationError, match=rf'broken\.json, {message}'):
        list(read_entries(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(EvaluationError, match=r'none\.json cannot be read: No such file'):
        list(read_entries(tmp_path / 'none.json'))
    path = tmp_path / 'binary.json'
    path.write_bytes(b'[{"a": "\xff\xfe"}]')
    with pytest.raises(EvaluationError, match='not UTF-8 text'):
        list(read_entries(path))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": []}', 'b is missing'),
        ('{"a": [], "b": [], "a": []}', 'a is there twice'),
        ('{"a": {}, "b": []}', r'expected the list of a, got '),
        ('{"a" [], "b": []}', r"expected a colon after 'a'"),
        ('{"a": [], "b": [{}', r'expected a comma or \] after 1 entries of b'),
    ],
)
def test_malformed_objects(tmp_path, text, message):
    path = tmp_path / 'broken.json'
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        list(read_lists(path, ('a', 'b')))


class TestFields:
    @staticmethod
    def entry(**value):
        return json_list.JsonEntry(source='f.json', number=3, line=14, value=value)

    @pytest.mark.parametrize('value', [True, '1', 1.5, None, [], float('nan'), float('inf'), 0, 14, 10**400])
    def test_integers(self, value):
        with pytest.raises(
            EvaluationError, match=r'f\.json, line 14, entry 3: n should be an integer from 1 to 13, got'
        ):
            self.entry(n=value).integer('n', 1, 13)
        assert self.entry(n=5.0).integer('n', 1, 13) == 5

    @pytest.mark.parametrize('value', [True, '1', None, [1], float('nan'), float('inf'), 10**400])
    def test_finite_numbers(self, value):
        with pytest.raises(EvaluationError, match='line 14, entry 3: n should be a finite number, got '):
            self.entry(n=value).finite('n')
        with pytest.raises(EvaluationError, match='line 14, entry 3: n should be two numbers, got '):
            self.entry(n=[1, value]).numbers('n', 2, 'two numbers')

    def test_large_numbers_of_which_the_sum_overflows_are_finite(self):
        assert self.entry(n=[1e308, 1e308]).numbers('n', 2, '') == [1e308, 1e308]

    def test_missing(self):
        with pytest.raises(EvaluationError, match='n is missing; it should be a finite number'):
            self.entry().finite('n')


def test_an_empty_list_is_a_list(tmp_path):
    assert json.loads(write_results(tmp_path / 'deep' / 'er' / 'e.json', []).read_text()) == []


@pytest.mark.parametrize('failure', [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_beside(tmp_path, failure):
    path = write_results(tmp_path / 'r.json', [{'score': 1}])

    def broken():
        yield {'score': 2}
        raise failure

    with pytest.raises(failure):
        write_results(path, broken())
    assert json.loads(path.read_text()) == [{'score': 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_json_cannot_say_are_refused(tmp_path):
    with pytest.raises(ValueError, match='JSON compliant'):
        write_results(tmp_path / 'r.json', [{'score': float('nan')}])
    assert not list(tmp_path.iterdir())
