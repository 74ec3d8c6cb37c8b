import pytest
import torch

from mmdf2.models import MatchHead


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
    head = make_head(positive_share=0.5).double()
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
