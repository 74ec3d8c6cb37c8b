"""tools/evaluate.py as a user starts it."""

import json

from tiny_run import run_tool

from mmdf2.datasets.prepare import prepare
from mmdf2.datasets.store import Store


def write_boxes(path, store, score=0.9):
    """Writes every annotated box as a detection into a COCO result file."""
    results = [
        {
            'image_id': image.image_id,
            'category_id': item.category_id,
            'bbox': [item.bbox[0], item.bbox[1], item.bbox[2] - item.bbox[0], item.bbox[3] - item.bbox[1]],
            'score': score,
        }
        for image in (store.image(index) for index in range(len(store)))
        for item in image.items
    ]
    path.write_text('[\n' + ',\n'.join(map(json.dumps, results)) + '\n]')


def test_perfect_boxes_score_one_in_every_column(tiny_root, tmp_path):
    store = Store.open(prepare(tiny_root, 'validation').folder)
    write_boxes(tmp_path / 'boxes.json', store)
    out = tmp_path / 'report.json'
    printed = run_tool(
        'evaluate.py', f'--gt={tiny_root}', f'--bbox={tmp_path / "boxes.json"}', '--subsets', f'--out={out}'
    )
    assert 'Table 2: clothes detection, boxes' in printed and 'released' in printed
    report = json.loads(out.read_text())
    assert report['bbox']['overall']['AP'] > 0.999
    for column, figures in report['bbox'].items():
        assert figures['AP'] > 0.999 or figures['items'] == 0, column
    assert {path.name for path in tmp_path.iterdir()} == {'boxes.json', 'report.json', 'report.md', 'report.csv'}


def test_a_malformed_file_ends_with_one_line_that_says_where(tiny_root, tmp_path):
    path = tmp_path / 'boxes.json'
    path.write_text('[\n{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": NaN}\n]')
    out = tmp_path / 'report.json'
    printed = run_tool('evaluate.py', f'--gt={tiny_root}', f'--bbox={path}', f'--out={out}', expect=1)
    assert printed.strip() == f'error: {path}, line 2, entry 0: score should be a finite number, got nan'
    assert not out.exists()
    printed = run_tool('evaluate.py', f'--gt={tmp_path / "none"}', f'--bbox={path}', expect=1)
    assert printed.startswith('error: ') and 'Traceback' not in printed
    printed = run_tool('evaluate.py', f'--bbox={path}', '--out=report.txt', expect=2)
    assert 'report is a .json file' in printed
