"""Matrix products over the open (subnet, unit) pairs of a work list, for every gated operation.

| product | function | contraction |
| --- | --- | --- |
| up projections; gradients of hidden activations | `expand` | D, for each pair |
| down projections; gradients of inputs | `reduce` | the open units of a subnet |
| gradients of weights | `weight_gradient` | the subnets in which a unit is open, and their rows |

Shapes: S subnets of M = B T rows, U units of width W, model width D. A *pair* is an open unit of a
subnet; its number is its row in every *compact* activation (capacity, M, W). A closed unit has no
row: it is not read, not written, and costs nothing. How many pairs there are stands in device
memory; programs beyond them run loops of length 0, so a captured CUDA graph follows new masks.

How every operation that is built on these is laid out (`gated_ffn`, `gated_attention`,
`gated_conv`):

- `reference.py` is plain torch; `triton.py` holds kernels and the functions that launch them;
  `op.py` holds the public function, the custom operators and their gradients. `triton.py` is the
  only one that imports triton, and is imported when a kernel first runs.
- The public function takes a `WorkList`, asks `dispatch.backend`, draws what is random, casts to
  the autocast dtype, and calls the operator; the operators take tensors and numbers only.
- A work list enters an operator as two arguments: `work`, its int32 buffer, and `capacity`, the
  rows of a compact activation. S and U are read off the shapes of activations and weights.
- Dropout enters as `dropout`, the rate, and `seed`, an int64 tensor (1,) on the device, or None.
- The backward is an operator of its own, so torch.compile sees both as opaque.
- Weights enter in the dtype of their owner and are cast to that of the activations inside; their
  gradients leave in float32. Gates and biases stay float32.
- Launches go through `launch.start`, configurations come from `launch.launch_config`, so that the
  same code runs on a GPU, in Triton's interpreter, and in the compile-only tests.
"""
