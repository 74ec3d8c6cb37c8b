import numpy as np
import pytest
import torch

from mmdf2.models import MatchHead
from mmdf2.models.losses import contrastive_loss, contrastive_targets, match_loss, pair_targets, pair_weights
from mmdf2.retrieval.similarity import DistanceSpace, Similarity


def make_head(**kwargs):
    torch.manual_seed(0)
    return MatchHead(**({'sources': ('pose',), 'in_channels': 6, 'conv_channels': (8, 12), 'embed_dims': 10} | kwargs))


def test_all_pairs_equal_the_linear_layer_on_squared_differences():
    head = make_head().double()
    query, gallery = torch.randn(5, 10, dtype=torch.float64), torch.randn(7, 10, dtype=torch.float64)
    expected = head.similarity((query[:, None] - gallery).square())
    torch.testing.assert_close(head.pair_logits(query, gallery), expected)


def test_all_pairs_have_the_gradients_of_the_formula():
    head = make_head().double()
    query, gallery = (torch.randn(n, 10, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    inputs = (query, gallery, head.similarity.weight, head.similarity.bias)
    cotangent = torch.randn(3, 4, 2, dtype=torch.float64)
    expected = torch.autograd.grad(head.similarity((query[:, None] - gallery).square()), inputs, cotangent)
    actual = torch.autograd.grad(head.pair_logits(query, gallery), inputs, cotangent)
    torch.testing.assert_close(actual, expected)


def test_streams_of_different_sizes_are_joined():
    head = make_head(sources=('pose', 'class'), in_channels=6 + 4)
    embeddings = head([torch.randn(3, 6, 14, 14), torch.randn(3, 4, 7, 7)])
    assert embeddings.shape == (3, 10)


@pytest.mark.parametrize('count', [0, 1, 2])
def test_batch_norm_in_training_survives_tiny_batches(count):
    head = make_head().train()
    embeddings = head([torch.randn(count, 6, 7, 7)])
    assert embeddings.shape == (count, 10) and torch.isfinite(embeddings).all()
    (embeddings.sum() + head.pair_logits(embeddings, embeddings).sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_one_garment_leaves_the_running_statistics_alone():
    head = make_head().train()
    head([torch.randn(1, 6, 7, 7)])
    assert (head.norm.running_mean == 0).all() and head.norm.num_batches_tracked == 0


def test_only_user_and_shop_are_paired():
    head = make_head(positive_share=0.5, norm_cfg=None, memory=0).double()
    embeddings = torch.randn(5, 10, dtype=torch.float64)
    is_shop = torch.tensor([0, 1, -1, 0, 1])
    identities, pair_ids = torch.tensor([7, 7, 7, 9, 9]), torch.tensor([1, 1, 1, 2, 2])
    logits = head.pair_logits(embeddings, embeddings).log_softmax(dim=-1)
    same = -(logits[0, 1, 0] + logits[3, 4, 0]) / 2
    different = -(logits[0, 4, 1] + logits[3, 1, 1]) / 2
    loss = head.loss(embeddings, is_shop, identities, pair_ids)['loss_match']
    assert loss.item() == pytest.approx(((same + different) / 2).item(), rel=1e-6)


@pytest.mark.parametrize('sources', [(), ('pose', 'pose'), ('box',)])
def test_wrong_sources_are_named(sources):
    with pytest.raises(ValueError, match='sources'):
        make_head(sources=sources)


def test_similarity_parameters_score_as_the_head_does():
    head = make_head()
    parameters = head.similarity_parameters()
    a, b = torch.randn(1, 10), torch.randn(1, 10)
    expected = (a - b).square() @ parameters['weight'].T + parameters['bias']
    torch.testing.assert_close(head.pair_logits(a, b)[0], expected)
    assert not parameters['weight'].requires_grad


def test_training_starts_from_distance():
    head = make_head(embed_dims=256)
    head.init_weights()
    near, far = torch.randn(2, 200, 256)
    logits = head.pair_logits(torch.cat([near, near]), torch.cat([near + 0.1, far]))
    scores = logits[..., 0] - logits[..., 1]
    same, different = scores[:200, :200].diagonal(), scores[200:, 200:].diagonal()
    assert same.min() > different.max()
    assert different.mean().item() == pytest.approx(-2, abs=0.1)


def made_garments(count=12):
    torch.manual_seed(1)
    identities = torch.randint(-1, 3, (count,))
    return {
        'projections': torch.randn(count, 10),
        'is_shop': torch.arange(count) % 2,
        'identities': identities,
        'pair_ids': torch.where(identities < 0, torch.randint(3, (count,)), identities),
        'labels': torch.randint(2, (count,)),
    }


def paired(head, garments):
    """Logits and targets of pairs, and the labels of both sides."""
    query, gallery = garments['is_shop'] == 0, garments['is_shop'] == 1
    sides = [garments[name][side] for name in ('identities', 'pair_ids') for side in (query, gallery)]
    logits = head.pair_logits(garments['projections'][query], garments['projections'][gallery])
    return logits, pair_targets(*sides), garments['labels'][query], garments['labels'][gallery]


def test_without_options_labels_change_no_bit_and_add_no_loss():
    head, garments = make_head(norm_cfg=None, memory=0), made_garments()
    logits, targets, *_ = paired(head, garments)
    expected = match_loss(logits, targets)
    for labels in (garments['labels'], None):
        losses = head.loss(**{**garments, 'labels': labels})
        assert set(losses) == {'loss_match'} and torch.equal(losses['loss_match'], expected)
    torch.testing.assert_close(head.similarity_parameters()['weight'], head.similarity.weight.detach(), rtol=0, atol=0)


def test_options_of_the_loss():
    head = make_head(
        same_category_weight=4.0, contrastive_weight=0.5, temperature=0.7, loss_weight=2.0, norm_cfg=None, memory=0
    )
    garments = made_garments()
    logits, targets, *labels = paired(head, garments)
    losses = head.loss(**garments)
    expected = 2 * match_loss(logits, targets, None, pair_weights(targets, *labels, 4.0))
    torch.testing.assert_close(losses['loss_match'], expected)
    everything = contrastive_targets(garments['identities'], garments['pair_ids'], garments['is_shop'])
    expected = contrastive_loss(head.pair_logits(garments['projections'], garments['projections']), everything, 0.7)
    torch.testing.assert_close(losses['loss_match_contrastive'], 0.5 * expected)
    assert losses['loss_match'] != 2 * match_loss(logits, targets) and expected > 0
    with pytest.raises(ValueError, match="needs the garments' labels"):
        head.loss(**{**garments, 'labels': None})


@pytest.mark.parametrize(
    'wrong',
    [
        {'same_category_weight': -1},
        {'same_category_weight': float('inf')},
        {'contrastive_weight': -0.1},
        {'contrastive_weight': float('nan')},
        {'temperature': 0},
    ],
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_head(**wrong)


def metric_head(scale=1.0):
    """A head whose weights, were they free, would have both signs."""
    head = make_head(true_metric=True)
    with torch.no_grad():
        head.similarity.weight.copy_(torch.randn(2, 10) * scale)
    free = head.similarity.weight[0] - head.similarity.weight[1]
    assert (free > 0).any() and (free < 0).any()
    return head


def exported(head):
    return Similarity(**{name: value.numpy() for name, value in head.similarity_parameters().items()})


@pytest.mark.parametrize('scale', [1e-30, 1e-3, 1.0, 1e6, 1e30])
def test_no_weight_of_a_true_metric_is_positive(scale):
    similarity = exported(metric_head(scale))
    assert (similarity.difference <= 0).all()
    assert DistanceSpace.fitted(similarity, np.zeros((1, 10), np.float32)).radius is None


def test_a_true_metric_keeps_the_triangle_inequality_which_free_weights_break():
    head = metric_head()
    points = np.random.default_rng(0).normal(size=(40, 10))

    def violations(similarity):
        squared = similarity.offset - similarity.scores(points, points)
        distances = np.sign(squared) * np.sqrt(np.abs(squared))
        return int((distances[:, :, None] > distances[:, None, :] + distances.T[None] + 1e-6).sum())

    assert violations(exported(head)) == 0
    head.true_metric = False
    assert violations(exported(head)) > 0


def test_a_true_metric_ranks_as_euclidean_distance_and_scores_as_exported():
    head = metric_head()
    similarity = exported(head)
    rng = np.random.default_rng(0)
    queries, vectors = (rng.normal(size=(count, 10)).astype(np.float32) for count in (5, 50))
    logits = head.pair_logits(torch.from_numpy(queries), torch.from_numpy(vectors)).detach().numpy()
    scores = similarity.scores(queries, vectors)
    np.testing.assert_allclose(logits[..., 0] - logits[..., 1], scores, atol=1e-4)
    space = DistanceSpace.fitted(similarity, vectors)
    distances = np.linalg.norm(space.queries(queries)[:, None] - space.items(vectors), axis=2)
    assert np.array_equal(distances.argsort(axis=1), (-scores).argsort(axis=1))


def test_a_useless_dimension_of_a_true_metric_can_come_back():
    head = metric_head()
    near = torch.randn(6, 10)
    head.pair_logits(near, near + 1)[..., 0].sum().backward()
    assert (head.similarity.weight.grad != 0).all()


def test_a_true_metric_starts_as_the_plain_head_does():
    heads = [make_head(embed_dims=256, true_metric=value) for value in (True, False)]
    for head in heads:
        head.init_weights()
    metric, plain = (head.similarity_parameters()['weight'] for head in heads)
    torch.testing.assert_close(metric, plain, rtol=0.1, atol=0)
    assert heads[0].state_dict().keys() == heads[1].state_dict().keys()
