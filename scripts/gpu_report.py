"""The file that check_gpu.py writes: a page to read, with all figures as JSON at its end."""

import json
import math
from pathlib import Path

from mmdf2.files import write_json, write_text

LINES_OF_LOG = 40
LONGEST_LINE = 300
# What a search on a GPU should reach on the sizes of the validation split: (what, contender, least rate beside it).
PRODUCT, OURS, ADDMM = 'matrix product alone', 'mmdf2.ops.pair_topk', 'torch addmm + topk'
AIMS = ((ADDMM, 2.0), (PRODUCT, 0.6))


def write_report(report: dict, out: Path) -> None:
    """Writes ``report.json``, from which a later run goes on, and ``report.md``, the file to send back."""
    report = without_nan(report)
    write_json(out / 'report.json', report)
    write_text(out / 'report.md', render(report, out))


def without_nan(value):
    """The same with None in place of each number that is not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: float | None, digits: int) -> str:
    return 'not finite' if value is None else f'{value:.{digits}f}'


def read_scalars(work_dir: Path) -> dict:
    """What a run of tools/train.py logged at each iteration of its last start; empty if it logged nothing."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    lines = logs[-1].read_text().splitlines() if logs else []
    return {'iterations': [entry for entry in map(json.loads, lines) if 'loss' in entry]}


def render(report: dict, out: Path) -> str:
    """The page of a report, in Markdown."""
    steps = report['steps']
    rows = [[name, step['outcome'], f'{step["seconds"]:.0f}', step['purpose']] for name, step in steps.items()]
    parts = ['# Check on a GPU', table(['step', 'outcome', 'seconds', 'what it shows'], rows)]
    sections = {
        'Machine': describe_machine(result_of(steps, 'facts')),
        'Search': describe_search(result_of(steps, 'benchmark-of-operators')),
        'Training': describe_training(result_of(steps, 'training')),
        'Runs of the tools': describe_runs(steps),
    }
    parts += [f'## {title}\n\n{text}' for title, text in sections.items() if text]
    parts.append('## The end of each log')
    parts += [f'### {name}\n\n{fenced(end_of(out / f"{name}.txt"))}' for name in steps]
    parts.append(f'## All figures\n\n{fenced(json.dumps(report, indent=1), "json")}')
    return '\n\n'.join(parts) + '\n'


def result_of(steps: dict, name: str):
    return (steps.get(name) or {}).get('result')


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell).replace('|', '/') for cell in line) + ' |' for line in lines)


def fenced(text: str, language: str = '') -> str:
    # Logs hold fences of their own only by accident; four marks outlast three.
    return f'````{language}\n{text}\n````'


def end_of(log: Path) -> str:
    lines = log.read_text(errors='replace').splitlines() if log.exists() else ['there is no log']
    return '\n'.join(line[:LONGEST_LINE] for line in lines[-LINES_OF_LOG:])


def describe_machine(facts: dict | None) -> str:
    if not facts:
        return ''
    gpus = [f'{gpu["name"]} ({gpu["capability"]}, {gpu["memory_GiB"]:.0f} GiB)' for gpu in facts['gpus']]
    rows = [
        ['GPUs', ', '.join(gpus) or 'none'],
        ['CUDA of torch, mmcv and mmdf2', ', '.join(map(str, cuda_versions(facts)))],
        ['architectures of mmdf2', facts['operators']['architectures']],
        ['cuDNN, NCCL', f'{facts["cudnn"]}, {facts.get("nccl")}'],
        ['Python, system', f'{facts["python"]}, {facts["system"]}'],
        ['cores, memory', f'{facts["cores"]}, {facts["memory_GiB"]:.0f} GiB'],
        ['libraries', ', '.join(f'{name} {version}' for name, version in facts['libraries'].items())],
        ['commit', f'{facts["commit"]}{", with changes" if facts["changes"] else ""}'],
    ]
    return table(['', ''], rows)


def cuda_versions(facts: dict) -> tuple:
    return facts['torch_cuda'], facts['mmcv_operators']['cuda'], facts['operators']['cuda']


def describe_search(result: dict | None) -> str:
    """How fast the search is beside its aims, for each size."""
    rows = []
    for search in (result or {}).get('searches', []):
        contenders = search['contenders']
        for other, least in AIMS:
            if 'seconds' in contenders.get(other, {}) and 'seconds' in contenders.get(OURS, {}):
                rate = contenders[other]['seconds'] / contenders[OURS]['seconds']
                size = f'{search["queries"]:,} x {search["gallery"]:,}'
                rows.append([size, other, f'{rate:.2f}', least, 'reached' if rate >= least else 'missed'])
    return table(['queries x gallery', 'beside', 'times as fast', 'aim', ''], rows) if rows else ''


def describe_training(result: dict | None) -> str:
    if not result:
        return ''
    contenders = result['contenders']
    rows = []
    for name, facts in contenders.items():
        peak = facts['peak_memory_GiB']
        rates = [facts['images_per_second'], facts['images_per_second_without_waiting_for_data']]
        losses = f'{shown(facts["first_loss"], 3)}, {shown(facts["last_loss"], 3)}'
        rows.append([name, *(f'{rate:.2f}' for rate in rates), '' if peak is None else f'{peak:.2f}', losses])
    head = ['', 'images/s', 'without waiting for data', 'peak memory, GiB', 'loss, first and last']
    parts = list(dict.fromkeys(part for facts in contenders.values() for part in facts['parts']))
    times = [[part, *(milliseconds(facts['parts'].get(part)) for facts in contenders.values())] for part in parts]
    batch = f'Batches of {result["batch_size"]}; images of {", ".join(result["input_shapes"])}.'
    return '\n\n'.join([batch, table(head, rows), table(['ms per step', *contenders], times)])


def milliseconds(seconds: float | None) -> str:
    return '' if seconds is None else f'{seconds * 1000:.1f}'


def describe_runs(steps: dict) -> str:
    """The losses of the tools' runs at their first and last iteration, and which runs agree with each other."""
    logged = {
        name: step['result']['iterations']
        for name, step in steps.items()
        if isinstance(step['result'], dict) and step['result'].get('iterations')
    }
    if not logged:
        return ''
    rows = [[name, len(entries), *describe_run(entries)] for name, entries in logged.items()]
    head = ['run', 'iterations', 'first loss', 'last loss', 'first loss_match', 'last loss_match']
    head += ['s per iteration', 's waiting for data', 'memory, MB']
    pairs = [('deterministic', 'deterministic-again'), ('one-process', 'processes')]
    compared = [[a, b, *compare(logged[a], logged[b])] for a, b in pairs if a in logged and b in logged]
    text = table(head, rows)
    if compared:
        head = ['run', 'other run', 'largest difference of the loss at the first iteration', 'at any iteration']
        text += '\n\n' + table(head, compared)
        text += (
            '\n\nDeterministic runs differ in the last digits on a GPU, because the gradient of RoIAlign is summed in '
            'any order. One process and several sample other RoIs, so that their losses agree only roughly.'
        )
    return text


def describe_run(entries: list[dict]) -> list[str]:
    first, last = entries[0], entries[-1]
    # The first iteration includes the start of cuDNN and of the loader's processes.
    later = entries[1:] or entries
    means = [sum(entry.get(key, 0) for entry in later) / len(later) for key in ('time', 'data_time')]
    losses = [shown(entry[key], 4) if key in entry else '' for key in ('loss', 'loss_match') for entry in (first, last)]
    memory = max(entry.get('memory', 0) for entry in entries)
    return [*losses, *(f'{mean:.3f}' for mean in means), f'{memory:.0f}']


def compare(one: list[dict], other: list[dict]) -> list[str]:
    pairs = [(a['loss'], b['loss']) for a, b in zip(one, other, strict=False)]
    if any(value is None for pair in pairs for value in pair):
        return ['not finite', 'not finite']
    differences = [abs(a - b) for a, b in pairs]
    return [f'{differences[0]:.3g}', f'{max(differences):.3g}']
