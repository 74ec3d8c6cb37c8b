"""Takes the backbone out of a trained checkpoint, in the small form of the weights that mmdf2 comes with.

python benchmarks/extract_backbone.py CHECKPOINT OUT.safetensors
"""

import argparse
import os
from pathlib import Path

from safetensors.torch import save_file

from mmdf2.engine import load_checkpoint_file
from mmdf2.models.packaged_weights import pack

PREFIX = 'backbone.'


def main() -> None:
    """Reads, extracts, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='a checkpoint of MMEngine')
    parser.add_argument('out', type=Path, help='the file to write')
    args = parser.parse_args()
    # Where weights were averaged, MMEngine saves the averages as state_dict.
    weights = load_checkpoint_file(args.checkpoint, map_location='cpu')['state_dict']
    backbone = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    if not backbone:
        raise SystemExit(f'{args.checkpoint} holds no weight whose name starts with {PREFIX!r}')
    beside = args.out.with_name(f'{args.out.name}.tmp')
    save_file(pack(backbone), beside)
    os.replace(beside, args.out)
    print(f'{args.out}: {sum(v.numel() for v in backbone.values()):,} weights, {args.out.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
