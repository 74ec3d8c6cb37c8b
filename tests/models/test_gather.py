import torch
import torch.distributed
import torch.multiprocessing

from mmdf2.models import MatchHead
from mmdf2.models.gather import gather_rows

# The rows of two processes; the second has fewer, and there is a pair only in the rows of both together.
ROWS = (3, 2)
IS_SHOP, IDENTITIES, PAIR_IDS = [0, 0, 1, 1, 0], [7, 9, 9, 7, -1], [1, 2, 2, 1, 2]
LABELS = [0, 0, 0, 1, 0]
PLAIN = {}
OPTIONS = {'true_metric': True, 'same_category_weight': 3.0, 'contrastive_weight': 0.5}


def gradients(start, count, options):
    torch.manual_seed(0)
    head = MatchHead(in_channels=3, conv_channels=(4,), embed_dims=5, **options).eval()
    features = torch.randn(sum(ROWS), 3, 7, 7)
    rows = slice(start, start + count)
    labels = (torch.tensor(values)[rows] for values in (IS_SHOP, IDENTITIES, PAIR_IDS, LABELS))
    loss = sum(head.loss(head([features[rows]]), *labels).values())
    return loss.detach(), torch.autograd.grad(loss, list(head.parameters()))


def process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=2)
    results = []
    for options in (PLAIN, OPTIONS):
        loss, mine = gradients(sum(ROWS[:rank]), ROWS[rank], options)
        for gradient in mine:
            torch.distributed.all_reduce(gradient)
            gradient /= 2
        results.append((loss, mine))
    torch.save(results, f'{folder}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(process, args=(str(tmp_path),), nprocs=2)
    expected = [gradients(0, sum(ROWS), options) for options in (PLAIN, OPTIONS)]
    assert expected[0][0] != expected[1][0]
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        for (rank_loss, averaged), (loss, whole) in zip(found, expected, strict=True):
            torch.testing.assert_close(rank_loss, loss)
            torch.testing.assert_close(averaged, whole)


def test_one_process_keeps_its_rows():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows
