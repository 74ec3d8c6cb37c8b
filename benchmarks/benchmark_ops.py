"""Measures mmdf2's operators and other ways to compute the same, in one run, and prints tables in Markdown.

    python benchmarks/benchmark_ops.py
    python benchmarks/benchmark_ops.py --device cuda --out benchmark.json
    python benchmarks/benchmark_ops.py --sizes 1x1000000 256x1000000

It measures the search for the 20 best of N gallery rows for each of M queries, with embeddings of 256 numbers, and then
the logits of M x N pairs in training. Rounds alternate between the contenders, and the best round counts, so that a
busy machine is equally unfair to all. Peak memory is what a contender needs beside the inputs. On a CPU it is measured
in a process per contender, because the peak of a process never falls.
"""

import argparse
import multiprocessing
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from pair_contenders import CLASSES, LIMIT, OURS, SEARCHES, TRAINING, WIDTH, make_inputs

from mmdf2.files import write_json
from mmdf2.ops import build_info

SIZES = [(12377, 36961), (1, 1_000_000), (256, 1_000_000)]
TRAINING_SIZE = (64, 64)
SAMPLE = 16  # queries whose scores are checked in float64


def seconds(function, device, calls=1):
    """Seconds per call: the mean of ``calls`` calls."""
    if device == 'cuda':
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / calls
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def alternate(functions, device, repeat, calls=1):
    """Seconds of each function in its best round of ``repeat`` rounds."""
    rounds = [{name: seconds(call, device, calls) for name, call in functions.items()} for _ in range(repeat)]
    return {name: min(one[name] for one in rounds) for name in functions}


def memory_of(function, device):
    """MB by which the peak rises while ``function`` runs; on a CPU only in a process that did nothing else before."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Only Unix has it, and GPUs do without.
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    function()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20


def inputs_of(contender, size, device):
    """The gallery and the queries that a contender searches: fewer than all for a slow one."""
    rows, columns = size
    if contender.pairs:
        rows = max(1, min(rows, contender.pairs // columns))
    inputs = make_inputs(*size, device, contender.negative)
    return inputs._replace(query=inputs.query[:rows])


def search_memory(name, size, device, threads):
    torch.set_num_threads(threads)
    contender = SEARCHES[name]
    contender.prepare(make_inputs(2, 64, device))()  # what a first call loads does not count
    inputs = inputs_of(contender, size, device)
    return memory_of(lambda: contender.prepare(inputs)(), device)


def training_memory(name, size, device, threads):
    torch.set_num_threads(threads)
    training_step(name, (2, 2), device)()
    return memory_of(training_step(name, size, device), device)


def search_times(names, size, device, threads, repeat):
    """For each contender its seconds, scaled to all queries, and how its result compares with ours."""
    torch.set_num_threads(threads)
    searches, rows, facts = {}, {}, {}
    for name in names:
        inputs = inputs_of(SEARCHES[name], size, device)
        searches[name] = SEARCHES[name].prepare(inputs)
        rows[name] = len(inputs.query)
        facts[name] = compare(searches[name](), inputs)
    for name, time_taken in alternate(searches, device, repeat).items():
        facts[name].update(seconds=time_taken * size[0] / rows[name], queries=rows[name])
    return facts


def compare(found, inputs):
    """The share of neighbours equal to ours, and the largest error of scores of a sample against the direct form."""
    if found is None:
        return {}
    scores, indices = (part.cpu() for part in found)
    expected = SEARCHES[OURS].prepare(inputs)()[1].cpu()
    query, gallery, difference = inputs.query[:SAMPLE].cpu(), inputs.gallery.cpu(), inputs.difference.cpu().double()
    direct = (query[:, None].double() - gallery[indices[:SAMPLE]].double()).square() @ difference
    return {
        'same_neighbours': (indices == expected).double().mean().item(),
        'score_error': (scores[:SAMPLE] - direct).abs().max().item(),
    }


def training_arguments(size, device):
    query, gallery, weight, _ = make_inputs(*size, device)
    bias = torch.zeros(CLASSES, device=device)
    return [argument.requires_grad_() for argument in (query, gallery, weight, bias)]


def training_step(name, size, device):
    arguments = training_arguments(size, device)
    upstream = torch.ones(*size, CLASSES, device=device)
    return lambda: torch.autograd.grad(TRAINING[name](*arguments), arguments, upstream)


def training_times(size, device, threads, repeat):
    torch.set_num_threads(threads)
    arguments = training_arguments(size, device)
    forward = {name: lambda logits=logits: logits(*arguments) for name, logits in TRAINING.items()}
    both = {name: training_step(name, size, device) for name in TRAINING}
    for call in (*forward.values(), *both.values()):
        call()
    once, twice = (alternate(functions, device, 5 * repeat, calls=50) for functions in (forward, both))
    return {name: {'forward_seconds': once[name], 'seconds': twice[name]} for name in TRAINING}


def apart(function, *arguments):
    """Calls a function in a new process, whose peak memory nothing has raised before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()


def measure(size, device, threads, repeat):
    usable = [name for name, contender in SEARCHES.items() if device in contender.devices and contender.available()]
    facts = apart(search_times, usable, size, device, threads, repeat)
    for name in usable:
        facts[name]['memory'] = apart(search_memory, name, size, device, threads)
    for name, contender in SEARCHES.items():
        if not contender.available() and device in contender.devices:
            facts[name] = {'missing': f'not installed: pip install {contender.needs}-cpu'}
    return facts


def machine(device, threads):
    names = [platform.processor() or platform.machine()]
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        names += [line.split(': ')[1] for line in lines if line.startswith('model name')][:1]
    info = build_info()
    return {
        'processor': names[-1],
        'threads': threads,
        'vector_instructions': torch.backends.cpu.get_cpu_capability(),
        **({'gpu': torch.cuda.get_device_name()} if device == 'cuda' else {}),
        'torch': torch.__version__,
        **{key: info[key] for key in ('compiler', 'flags', 'cuda')},
    }


def search_table(size, facts):
    limit = facts[LIMIT]['seconds']
    rows = [['', 'seconds', 'rate / product', 'extra MB', 'same neighbours', 'score error', 'queries timed']]
    for name, fact in facts.items():
        if 'missing' in fact:
            rows.append([name, fact['missing'], *[''] * 5])
            continue
        same, error = fact.get('same_neighbours'), fact.get('score_error')
        agreement = ['', ''] if same is None else [f'{same:.4%}', f'{error:.1e}']
        times = [f'{fact["seconds"]:.4g}', f'{limit / fact["seconds"]:.3g}', f'{fact["memory"]:.0f}']
        part = f'{fact["queries"]}{", scaled" if fact["queries"] < size[0] else ""}'
        rows.append([name, *times, *agreement, part])
    return f'k best of {size[0]:,} x {size[1]:,}, D = {WIDTH}', rows


def training_table(size, facts):
    rows = [['', 'forward, ms', 'forward + backward, ms', 'extra MB']]
    for name, fact in facts.items():
        times = [f'{fact[key] * 1000:.3f}' for key in ('forward_seconds', 'seconds')]
        rows.append([name, *times, f'{fact["memory"]:.0f}'])
    return f'Logits of {size[0]} x {size[1]} pairs, D = {WIDTH}, C = {CLASSES}', rows


def print_table(title, rows):
    print(f'\n{title}\n')
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + ' |', flush=True)
        if number == 0:
            print('| ' + ' | '.join('-' * width for width in widths) + ' |')


def parse_size(text):
    try:
        rows, columns = (int(part) for part in text.split('x'))
    except ValueError:
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise argparse.ArgumentTypeError(f'a size is queries x gallery rows, such as 256x1000000, got {text!r}')
    return rows, columns


def parse_args():
    parser = argparse.ArgumentParser(description='Measure the operators and other ways to compute the same.')
    parser.add_argument('--sizes', nargs='+', type=parse_size, help='MxN of the searches (default: three)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--repeat', type=int, default=3, help='rounds, of which the best one counts (default: 3)')
    parser.add_argument(
        '--quick', action='store_true', help='one small size and one round, to see that everything runs'
    )
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda, but torch finds no GPU: torch.cuda.is_available() is False')
    if args.quick:
        args.repeat = 1
    args.sizes = args.sizes or ([(40, 3000)] if args.quick else SIZES)
    return args


def main():
    args = parse_args()
    result = {'machine': machine(args.device, args.threads), 'searches': [], 'training': {}}
    print(', '.join(f'{key}: {value}' for key, value in result['machine'].items()))
    for size in args.sizes:
        facts = measure(size, args.device, args.threads, args.repeat)
        result['searches'].append({'queries': size[0], 'gallery': size[1], 'contenders': facts})
        print_table(*search_table(size, facts))
    facts = apart(training_times, TRAINING_SIZE, args.device, args.threads, args.repeat)
    for name, fact in facts.items():
        fact['memory'] = apart(training_memory, name, TRAINING_SIZE, args.device, args.threads)
    result['training'] = facts
    print_table(*training_table(TRAINING_SIZE, facts))
    if args.out:
        write_json(args.out, result)


if __name__ == '__main__':
    main()
