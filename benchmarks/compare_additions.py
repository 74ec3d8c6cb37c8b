"""Trains the demo's model on versions of the wardrobe, and measures what each addition is worth on photographs.

    python benchmarks/compare_additions.py --dir DIR --clothing-co-parsing clothing-co-parsing

Per row a wardrobe is drawn, the demo's recipe is trained on it with the same seed for the same number of iterations,
and the model is measured by benchmarks/measure_transfer.py. The rows are version 1, version 2, and version 2 without
each of its additions; choose some of them by --rows. What is done stays in DIR, so that an interrupted run goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from mmdf2.command_line import start

if __name__ == '__main__':
    start('The same command goes on where this one stopped.')

from mmdf2.engine.launching import config_of_run, last_checkpoint, launch_training
from mmdf2.wardrobe import make_wardrobe
from mmdf2.wardrobe.version import ADDITIONS, Version

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / 'configs/synthetic/match-rcnn_r18-narrow_wardrobe.py'
ROWS = {
    'version 1': Version(1),
    'version 2': Version(2),
    **{f'without {name}': Version(2, without=(name,)) for name in ADDITIONS},
}


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, required=True, help='folder of the wardrobes and the models')
    parser.add_argument(
        '--clothing-co-parsing', type=Path, required=True, help='folder of the Clothing Co-Parsing data'
    )
    parser.add_argument('--photos', type=Path, help='also measure on photos in the layout of DeepFashion2')
    parser.add_argument(
        '--rows', nargs='+', choices=list(ROWS), default=list(ROWS), metavar='ROW', help='what to compare'
    )
    parser.add_argument('--identities', type=int, default=650, help='identities per wardrobe (default: 650)')
    parser.add_argument('--seed', type=int, default=1, help='seed of the wardrobes and of the training (default: 1)')
    parser.add_argument('--backbone', help='weights that the backbone starts from, instead of those of the recipe')
    args = parser.parse_args()
    lines = []
    for row in args.rows:
        folder = args.dir / row.replace(' ', '_')
        checkpoint = train(folder, ROWS[row], args)
        figures = measure(folder, checkpoint, 'street', '--clothing-co-parsing', args.clothing_co_parsing)
        cells = [figures['garment_AP50'], figures['garment_AP'], figures['garment_AR']]
        if args.photos:
            figures = measure(folder, checkpoint, 'photos', '--photos', args.photos)
            cells += [figures['garment_AP50'], figures['garment_AP'], figures['landmarks_near']]
        lines.append(f'| {row} | ' + ' | '.join(f'{cell:.3f}' for cell in cells) + ' |')
        print(lines[-1], flush=True)
    names = ['AP50', 'AP', 'AR'] + (['AP50, photos', 'AP, photos', 'landmarks found, photos'] if args.photos else [])
    print('\n| wardrobe | ' + ' | '.join(names) + ' |\n|' + ' --- |' * (len(names) + 1))
    print('\n'.join(lines))


def train(folder: Path, version: Version, args: argparse.Namespace) -> Path:
    """Draws a wardrobe and trains on it; returns the checkpoint. What the training prints is in train.log."""
    make_wardrobe(folder / 'wardrobe', args.identities, args.seed, size=320, version=version)
    config = config_of_run(CONFIG, folder, args.seed)
    if args.backbone:
        config.model.backbone.init_cfg.checkpoint = args.backbone
    checkpoint = last_checkpoint(config)
    if not checkpoint.exists():
        with open(folder / 'train.log', 'ab') as log:
            launch_training(config, ROOT / 'tools/train.py', log)
    return checkpoint


def measure(folder: Path, checkpoint: Path, name: str, *source) -> dict:
    """The figures of benchmarks/measure_transfer.py for a model, from its file if it was measured before."""
    out = folder / f'{name}.json'
    if not out.exists():
        script = Path(__file__).with_name('measure_transfer.py')
        command = [sys.executable, script, folder / 'config.py', checkpoint, *source, '--out', out]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


if __name__ == '__main__':
    main()
