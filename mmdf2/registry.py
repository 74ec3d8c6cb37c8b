"""Registries of scope ``mmdf2``: children of MMEngine's roots, so that a config of any MMDetection project can name
``mmdf2.X`` without changing its ``default_scope`` and without ``custom_imports``.

Each registry imports its ``locations`` the first time that something is looked up in it.
"""

from mmdf2.stack import require_stack

require_stack()

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS  # noqa: E402
from mmengine.registry import DATASETS as ROOT_DATASETS  # noqa: E402
from mmengine.registry import HOOKS as ROOT_HOOKS  # noqa: E402
from mmengine.registry import METRICS as ROOT_METRICS  # noqa: E402
from mmengine.registry import MODELS as ROOT_MODELS  # noqa: E402
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS  # noqa: E402
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS  # noqa: E402
from mmengine.registry import VISUALIZERS as ROOT_VISUALIZERS  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

MODELS = Registry('model', parent=ROOT_MODELS, scope='mmdf2', locations=['mmdf2.models'])
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='mmdf2', locations=['mmdf2.datasets.deepfashion2'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=ROOT_DATA_SAMPLERS, scope='mmdf2', locations=['mmdf2.datasets.samplers']
)
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope='mmdf2', locations=['mmdf2.datasets.transforms'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmdf2', locations=['mmdf2.engine', 'mmdf2.visualization.hook'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=ROOT_OPTIM_WRAPPERS, scope='mmdf2', locations=['mmdf2.engine'])
METRICS = Registry('metric', parent=ROOT_METRICS, scope='mmdf2', locations=['mmdf2.evaluation.metrics'])
VISUALIZERS = Registry('visualizer', parent=ROOT_VISUALIZERS, scope='mmdf2', locations=['mmdf2.visualization'])
