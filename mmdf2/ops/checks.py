"""What the operators accept, said in terms of the caller's arguments."""

import torch

DTYPES = (torch.float32, torch.float64)
AUTOCAST_DTYPES = (torch.float16, torch.bfloat16)


def check_pairs(query, gallery, weight, bias):
    """Checks the arguments that both operators share.

    Raises:
        TypeError: An argument is no tensor, or of a dtype that the operators do not take.
        ValueError: A shape or device does not fit the others, or ``weight`` or ``bias`` is not finite.
    """
    tensors = {'query': query, 'gallery': gallery, 'weight': weight}
    if bias is not None:
        tensors['bias'] = bias
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f'{name} must be a torch.Tensor, got {type(tensor).__name__}')
    check_shapes(**tensors)
    for name, tensor in tensors.items():
        if tensor.device != query.device:
            raise ValueError(f'{name} is on {tensor.device}, but query is on {query.device}: move one of them')
    check_dtypes(tensors)
    # Looking at values stops the compiler's trace; shapes and dtypes do not.
    if torch.compiler.is_compiling():
        return
    for name, tensor in (('weight', weight), ('bias', bias)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise ValueError(f'{name} must be finite, got NaN or infinity in shape {tuple(tensor.shape)}')


def check_shapes(query, gallery, weight, bias=None):
    """Checks (M, D), (N, D), (C, D), (C,)."""
    for name, tensor, letters in (('query', query, 'M, D'), ('gallery', gallery, 'N, D'), ('weight', weight, 'C, D')):
        if tensor.ndim != 2:
            raise ValueError(f'{name} must have shape ({letters}), got {tuple(tensor.shape)}')
        if tensor.shape[1] != query.shape[1]:
            raise ValueError(
                f'{name} must have the width of query, ({letters}) with D = {query.shape[1]}, got {tuple(tensor.shape)}'
            )
    if weight.shape[0] < 1:
        raise ValueError(f'weight must have at least one row, got {tuple(weight.shape)}')
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f'bias must have shape ({weight.shape[0]},), one per row of weight, got {tuple(bias.shape)}')


def check_dtypes(tensors):
    """Checks for one of float32 and float64; autocast brings 16-bit floats up to float32 by itself."""
    query = tensors['query']
    autocast = torch.is_autocast_enabled(query.device.type)
    allowed = DTYPES + AUTOCAST_DTYPES if autocast else DTYPES
    for name, tensor in tensors.items():
        if tensor.dtype not in allowed:
            raise TypeError(f'{name} must be float32 or float64, got {tensor.dtype} (16-bit floats need autocast)')
        if (tensor.dtype == torch.float64) != (query.dtype == torch.float64):
            raise TypeError(f'{name} is {tensor.dtype}, but query is {query.dtype}: convert one of them')
