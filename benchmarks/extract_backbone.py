"""Extracts the backbone of a trained checkpoint, in the packed form of the weights in mmdf2's wheel.

python benchmarks/extract_backbone.py CHECKPOINT OUT.safetensors
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from mmdf2.engine import load_checkpoint_file
from mmdf2.files import path_beside
from mmdf2.models.packaged_weights import pack

PREFIX = 'backbone.'


def main() -> None:
    """Reads a checkpoint and writes the weights of its backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='checkpoint written by MMEngine')
    parser.add_argument('out', type=Path, help='file to write')
    args = parser.parse_args()
    # When weights were averaged, MMEngine saves the averages as state_dict.
    weights = load_checkpoint_file(args.checkpoint, map_location='cpu')['state_dict']
    backbone = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    if not backbone:
        raise SystemExit(f'{args.checkpoint} has no weight whose name starts with {PREFIX!r}')
    with path_beside(args.out) as beside:
        save_file(pack(backbone), beside)
    print(f'{args.out}: {sum(v.numel() for v in backbone.values()):,} weights, {args.out.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
