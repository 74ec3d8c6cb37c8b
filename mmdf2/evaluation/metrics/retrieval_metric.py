"""Consumer-to-shop retrieval by the official protocol, for MMEngine's evaluator."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmdf2.categories import Source
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.datasets.store import Store
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.files.retrieval import retrieval_result
from mmdf2.evaluation.metrics.data_samples import (
    common_fields,
    image_id,
    one_per_image,
    to_array,
    unreadable_result,
    usable,
    warn_of_coverage,
)
from mmdf2.evaluation.metrics.threads import cores_of_waiting_processes
from mmdf2.evaluation.records import COLUMNS, OVERALL, EvaluationError
from mmdf2.evaluation.report.figures import column_ending, flat_figures, retrieval_figures
from mmdf2.evaluation.report.tables import report_text
from mmdf2.evaluation.retrieval import MAX_HITS, TOP_K, Outcome, RetrievalItems, chance_top1, judge, select_queries
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.evaluation.verification import draw_pairs, verification_figures
from mmdf2.ops import pair_similarity, pair_topk
from mmdf2.registry import METRICS

# ``weight`` (2, D) and ``bias`` (2,) of a match head.
Weights = Mapping[str, np.ndarray]
# Negative pairs per query item in the figures of verification.
_NEGATIVES = 200


@dataclass(frozen=True)
class EmbeddedBoxes:
    """Boxes with embeddings, n of them.

    Attributes:
        image_ids: (n,) int64, the image of each box.
        boxes: (n, 4) float64, x1, y1, x2, y2 in pixels.
        labels: (n,) int64, categories, 0 to 12.
        scores: (n,) float64, the scores of the boxes; 1 for ground-truth boxes.
        embeddings: (n, D) float32.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Top-1, 5, 10, 15 and 20 of retrieval, with detected boxes and with ground-truth boxes.

    Returns these figures, from 0 to 1:

    - ``retrieval_top1`` to ``retrieval_top20``: detected boxes, over all query items (the official overall figures);
    - ``retrieval_paper_top1`` and so on: the same over queries with more than five matching gallery items (the paper's
      table), left out when there is no such query;
    - ``retrieval_map`` and ``retrieval_mrr``: mean average precision and mean reciprocal rank of the first 20;
    - ``retrieval_gt_top1``, ``retrieval_gt_paper_top1`` and so on: all of these with ground-truth boxes as detections,
      when the model embedded them (``test_cfg.rcnn.embed_gt_boxes``);
    - ``verification_auc`` and the other figures of ``verification_figures``: with ground-truth boxes, over all positive
      pairs of a query item and a gallery item and 200 negative pairs per query item, drawn with a fixed seed; the score
      of a pair is the logit of 'same' minus the other logit;
    - ``retrieval_chance_top1``: the top-1 accuracy that a random order of the gallery's ground-truth boxes would reach
      over all queries;

    and the counts ``retrieval_queries``, ``retrieval_paper_queries`` and ``retrieval_missed``, with ``retrieval_gt_``
    for ground-truth boxes.

    Queries are the items of user images with a style, the gallery is every box on every shop image. Only images that
    were processed take part; a warning says so when these are not the whole split.

    Args:
        data_root: The dataset's folder. Ground truth comes from its store, which is made if it is missing.
        split: 'train' or 'validation'.
        subsets: Whether to count the queries of the paper's twelve subsets too, with keys such as
            ``retrieval_top1_scale_small``, and to log the paper's Table 5.
        outfile_prefix: Prefix of official result files to write: ``<prefix>.retrieval.json`` and, with ground-truth
            boxes, ``<prefix>.retrieval_gt.json``; None to write none. The files hold the detections that represent a
            query item (``select_queries``), in the order of the items, with what was retrieved for them. The other
            detections on user images, often a hundred times as many, cannot change a figure and are not searched for.
        collect_device: Device on which results of several processes are collected; see MMEngine's ``BaseMetric``.
        prefix: Prefix of the keys; none by default.
        collect_dir: Folder through which results are collected on the CPU; see MMEngine's ``BaseMetric``.
        store: Folder of the store, the same as that of the dataset; by default ``<data_root>/<split>.store``.

    Raises:
        ValueError: The model does not predict embeddings, or the weights that compare them.
        EvaluationError: Predictions lie on images that the split does not have, or ground-truth boxes are not those of
            the split.
    """

    default_prefix = ''

    def __init__(
        self,
        data_root: str,
        split: str = 'validation',
        subsets: bool = False,
        outfile_prefix: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
        store: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        self.data_root = data_root
        self.split = split
        self.store = store
        self.subsets = subsets
        self.outfile_prefix = outfile_prefix
        self._similarity: dict[str, np.ndarray] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps boxes, scores, labels and embeddings of each image, and the weights that compare embeddings.

        Args:
            data_batch: Not used.
            data_samples: Dicts with img_id, pred_instances and match_similarity, and gt_box_instances for the
                ground-truth protocol.
        """
        for sample in data_samples:
            if failed := unreadable_result(sample):
                self.results.append(failed)
                continue
            result = _compact(sample)
            # One copy of the weights per process is shared: pickling all results together writes it once.
            if self._similarity is None or any(
                not np.array_equal(self._similarity[name], value) for name, value in result['similarity'].items()
            ):
                self._similarity = result['similarity']
            self.results.append({**result, 'similarity': self._similarity})

    @cores_of_waiting_processes()
    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluates the collected results of all processes."""
        results = one_per_image(results, type(self).__name__)
        if not results:
            raise ValueError('RetrievalMetric got no predictions: the test dataset has no image that can be used')
        store = open_or_prepare(self.data_root, self.split, self.store)
        image_ids = np.array([result['img_id'] for result in results], dtype=np.int64)
        warn_of_coverage(store, image_ids, type(self).__name__)
        items, gallery = (retrieval_items(store, source, image_ids) for source in (Source.USER, Source.SHOP))
        _warn_of_hopeless_queries(items, gallery)
        users = image_ids[np.isin(image_ids, store.image_ids[store.sources == Source.USER])]
        similarity = results[0]['similarity']
        queries, entries = _split(_detected(results), users)
        report = {'retrieval': self._evaluate('retrieval', items, gallery, queries, entries, similarity)}
        verified = {}
        if common_fields(results, ['gt_embeddings']):
            queries, entries = _split(_annotated(results, store, image_ids), users)
            report['retrieval_gt'] = self._evaluate('retrieval_gt', items, gallery, queries, entries, similarity)
            verified = _verify(items, gallery, queries, entries, similarity)
        else:
            print_log('No gt_box_instances were predicted: retrieval with ground-truth boxes is left out', 'current')
        if self.subsets:
            print_log(f'\n{report_text(report)}', 'current')
        figures = {}
        for task, columns in report.items():
            figures.update(flat_figures(columns, f'{task}_{{}}'))
        figures.update({f'verification_{name}': value for name, value in verified.items()})
        return {**figures, 'retrieval_chance_top1': chance_top1(items, gallery)}

    def figure_names(self) -> set[str]:
        """The keys of the figures that the results kept so far may lead to."""
        kinds = [f'{part}{name}' for part in ('', 'paper_') for name in (*(f'top{k}' for k in TOP_K), 'map', 'mrr')]
        tasks = ['retrieval']
        names = {'retrieval_chance_top1'}
        if common_fields(usable(self.results), ['gt_embeddings']):
            tasks.append('retrieval_gt')
            names |= {f'verification_{name}' for name in verification_figures([1.0, 0.0], [True, False])}
        return names | {
            f'{task}_{name}{column_ending(column)}'
            for task in tasks
            for name in (*kinds, 'queries', 'paper_queries', 'missed')
            for column in (COLUMNS if self.subsets else (OVERALL,))
        }

    def _evaluate(
        self,
        task: str,
        items: RetrievalItems,
        gallery: RetrievalItems,
        queries: EmbeddedBoxes,
        entries: EmbeddedBoxes,
        similarity: Weights,
    ) -> dict[str, dict]:
        found = find(items, queries, entries, similarity)
        if self.outfile_prefix:
            path = f'{self.outfile_prefix}.{task}.json'
            print_log(f'Results written to {write_results(path, _result_entries(found, queries, entries))}', 'current')
        outcome = found.judged(items, gallery, entries)
        return retrieval_figures(outcome, items, COLUMNS if self.subsets else (OVERALL,))


def search(queries: EmbeddedBoxes, rows: np.ndarray, entries: EmbeddedBoxes, similarity: Weights) -> np.ndarray:
    """Finds the most similar gallery boxes of some queries.

    Args:
        queries: Boxes on user images.
        rows: (q,) rows of the boxes that are searched for.
        entries: Boxes on shop images, n of them.
        similarity: ``weight`` (2, D) and ``bias`` (2,) of the match head; class 0 is 'same'.

    Returns:
        (q, min(20, n)) int64 rows of ``entries``, best first; equally similar ones in their order.
    """
    count = min(MAX_HITS, len(entries.scores))
    if not count or not len(rows):
        return np.zeros((len(rows), count), dtype=np.int64)
    _, indices = pair_topk(
        torch.from_numpy(queries.embeddings[rows]),
        torch.from_numpy(entries.embeddings),
        torch.from_numpy(similarity['weight']),
        torch.from_numpy(similarity['bias']),
        k=count,
    )
    return indices.numpy()


@dataclass(frozen=True)
class Found:
    """What was found for q query items, of which r are represented by a box.

    Attributes:
        queries: (q,) rows of the query items.
        chosen: (q,) row of the box that represents each query item, -1 where the item is missed.
        hits: (r, k) rows of the most similar gallery boxes of the represented items, best first.
    """

    queries: np.ndarray
    chosen: np.ndarray
    hits: np.ndarray

    def judged(self, items: RetrievalItems, gallery: RetrievalItems, entries: EmbeddedBoxes) -> Outcome:
        """Decides which of the hits are right.

        Args:
            items: The items of the user images.
            gallery: The items of the shop images.
            entries: The boxes on shop images that were searched.
        """
        flat = self.hits.reshape(-1)
        return judge(
            items,
            gallery,
            self.queries,
            self.chosen < 0,
            entries.image_ids[flat],
            entries.boxes[flat],
            np.repeat(np.flatnonzero(self.chosen >= 0), self.hits.shape[1]),
        )


def find(items: RetrievalItems, queries: EmbeddedBoxes, entries: EmbeddedBoxes, similarity: Weights) -> Found:
    """Searches for each query item by the box that represents it.

    Args:
        items: The items of the user images.
        queries: Detections on the user images, or the items' own boxes.
        entries: Detections on the shop images, or the items' own boxes.
        similarity: ``weight`` (2, D) and ``bias`` (2,) of the match head; class 0 is 'same'.
    """
    wanted, chosen = select_queries(items, queries.image_ids, queries.boxes, queries.labels, queries.scores)
    return Found(wanted, chosen, search(queries, chosen[chosen >= 0], entries, similarity))


def _verify(
    items: RetrievalItems, gallery: RetrievalItems, queries: EmbeddedBoxes, entries: EmbeddedBoxes, similarity: Weights
) -> dict:
    """Figures of pairs of ground-truth boxes, which are in the order of the items."""
    query, entry, same = draw_pairs(items.identities, gallery.identities, _NEGATIVES, seed=0)
    embeddings = [torch.from_numpy(boxes.embeddings) for boxes in (queries, entries)]
    weight, bias = (torch.from_numpy(similarity[name]) for name in ('weight', 'bias'))
    rows, first = np.unique(query, return_index=True)
    scores = []
    for row, begin, end in zip(rows.tolist(), first, np.append(first, len(query))[1:], strict=True):
        logits = pair_similarity(embeddings[0][row : row + 1], embeddings[1][entry[begin:end]], weight, bias)[0]
        scores.append((logits[:, 0] - logits[:, 1]).numpy())
    return verification_figures(np.concatenate([*scores, []]), same)


def _result_entries(found: Found, queries: EmbeddedBoxes, entries: EmbeddedBoxes) -> Iterator[dict]:
    """The entries of an official result file."""
    for row, hits in zip(found.chosen[found.chosen >= 0], found.hits, strict=True):
        yield retrieval_result(
            queries.image_ids[row],
            queries.boxes[row],
            queries.labels[row],
            queries.scores[row],
            entries.image_ids[hits],
            entries.boxes[hits],
        )


def _compact(sample: dict) -> dict:
    predictions = sample['pred_instances']
    if 'embeddings' not in predictions or 'match_similarity' not in sample:
        raise ValueError(
            'RetrievalMetric needs embeddings in pred_instances and match_similarity in the data sample; the model '
            'predicts neither without a match_head: give it one, or leave the metric out'
        )
    result = {
        'img_id': image_id(sample),
        'bboxes': to_array(predictions['bboxes'], np.float32).reshape(-1, 4),
        'scores': to_array(predictions['scores'], np.float32),
        'labels': to_array(predictions['labels'], np.int64),
        'embeddings': to_array(predictions['embeddings'], np.float32),
        'similarity': {name: to_array(sample['match_similarity'][name], np.float32) for name in ('weight', 'bias')},
    }
    if 'gt_box_instances' in sample:
        annotated = sample['gt_box_instances']
        result['gt_labels'] = to_array(annotated['labels'], np.int64)
        result['gt_embeddings'] = to_array(annotated['embeddings'], np.float32)
    return result


def _detected(results: list[dict]) -> EmbeddedBoxes:
    counts = [len(result['scores']) for result in results]
    return EmbeddedBoxes(
        image_ids=np.repeat(np.array([result['img_id'] for result in results], dtype=np.int64), counts),
        boxes=np.concatenate([result['bboxes'] for result in results], dtype=np.float64),
        labels=np.concatenate([result['labels'] for result in results]),
        scores=np.concatenate([result['scores'] for result in results], dtype=np.float64),
        embeddings=np.concatenate([result['embeddings'] for result in results]),
    )


def _annotated(results: list[dict], store: Store, image_ids: np.ndarray) -> EmbeddedBoxes:
    """Ground-truth boxes as detections, in the order of the store's items."""
    sources = [retrieval_items(store, source, image_ids) for source in (Source.USER, Source.SHOP)]
    columns = [np.concatenate([getattr(items, name) for items in sources]) for name in ('image_ids', 'boxes', 'labels')]
    order = np.argsort(columns[0], kind='stable')
    item_images, boxes, labels = (column[order] for column in columns)
    for result in results:
        expected = labels[slice(*np.searchsorted(item_images, [result['img_id'], result['img_id'] + 1]))]
        if result['gt_labels'].tolist() != expected.tolist() or len(result['gt_embeddings']) != len(expected):
            raise EvaluationError(
                f'gt_box_instances of image {result["img_id"]} have labels {result["gt_labels"].tolist()}, its items '
                f'in {store.folder} are {expected.tolist()}; the test pipeline must keep all items in their order'
            )
    embeddings = np.concatenate([result['gt_embeddings'] for result in results])
    return EmbeddedBoxes(
        image_ids=item_images, boxes=boxes, labels=labels, scores=np.ones(len(labels)), embeddings=embeddings
    )


def _split(boxes: EmbeddedBoxes, users: np.ndarray) -> tuple[EmbeddedBoxes, EmbeddedBoxes]:
    """Separates the boxes on user images from those on shop images; ``users`` are the ids of the user images."""
    on_user = np.isin(boxes.image_ids, users)
    queries, entries = (
        EmbeddedBoxes(**{name: column[rows] for name, column in vars(boxes).items()}) for rows in (on_user, ~on_user)
    )
    return queries, entries


def _warn_of_hopeless_queries(items: RetrievalItems, gallery: RetrievalItems) -> None:
    identities = items.identities[items.identities >= 0]
    hopeless = int((~np.isin(identities, gallery.identities)).sum())
    if hopeless:
        print_log(
            f'RetrievalMetric: {hopeless} of {len(identities)} query items have no matching item in the gallery and '
            'can only count as wrong',
            'current',
            logging.WARNING,
        )
