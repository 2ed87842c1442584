#!/usr/bin/env bash
# optax: a label of -1 is the last class, and -100 the hundredth from the end.
#
# Guess    Labels out of range give an error or NaN; -1 and -100, by which torch, keras and transformers mark what is
#          ignored, are at least noticed.
# Truth    Negative labels count from the end, as an index does. With a vocabulary of 100 or more, every masked
#          position trains the token V - 100, and the mean is over all positions. Only with fewer than 100 classes is
#          -100 a NaN; a label of V is NaN.
# Source   optax 0.2.8, optax/losses/_classification.py, softmax_cross_entropy_with_integer_labels (take_along_axis of
#          jax 0.10.2).
# Instead  Multiply by the mask and divide by its sum (the argument `where` is a mask of classes).
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet optax==0.2.8 jax==0.10.2 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import jax
import jax.numpy as jnp
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

print("optax", version("optax"), "jax", version("jax"))
logits = jnp.linspace(2, -1, 200)[None]
label = {y: cross_entropy(logits, jnp.array([y])).item() for y in (-1, 199, -100, 100, 200)}
for y, value in label.items():
    print(f"V = 200, label {y:4}: {value:.4f}")
few = cross_entropy(jnp.array([[2.0, 1.0, 0.0, -1.0]]), jnp.array([-100])).item()
print(f"V = 4, label -100: {few}")
pushed = jax.grad(lambda z: cross_entropy(z, jnp.array([-100]))[0])(logits)[0]
print(f"V = 200, label -100: the gradient raises token {pushed.argmin().item()} ({pushed.min().item():.3f})")
holds = label[-1] == label[199] and label[-100] == label[100] and label[200] != label[200] and few != few
holds = holds and pushed.argmin().item() == 100
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
