"""What a training step costs, for each loss of a study: its operations counted, its time measured.

From the repository root, on any backend that Keras has (KERAS_BACKEND) and without any data:

    .venv/bin/python benchmarks/train_step.py config/demo.yaml --steps 20

Input: a configuration and the options that replace its values; weights, slices and masks are random. Output, as
Markdown, a row for each loss and what it is to be held against: the machine's speed at a plain 3x3 convolution, the
Siamese step's cost as its operations predict it, the speed of the input pipeline, memory. Only convolutions are counted,
a multiply-add as two operations. All take turns in random order, so that other work on the machine slows all alike.
"""

import argparse
import functools
import itertools
import math
import resource
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
from in_torch import InTorch
from keras import layers, ops

from wmhlib import features
from wmhlib.batches import ReadAhead, TrainingBatches, chosen_augmentations
from wmhlib.learner import Learner, precision
from wmhlib.minmax import make_adversary
from wmhlib.study import Study, open_study
from wmhlib.training import make_learner

WARM_UP = 2
"""Steps of each loss before any is timed: they compile."""

DRAWN = 40
"""Batches that the input pipeline is timed over."""

TARGET = 1.15
"""How much dearer than predicted the Siamese step may be."""


def forward_operations(network: keras.Model) -> list[int]:
    """Operations of one slice in each convolution, in the network's order."""
    found = []
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose):
            # its whole kernel is multiplied once for each pixel: of its output, or of its input where it is transposed
            places = layer.input if isinstance(layer, layers.Conv2DTranspose) else layer.output
            found.append(2 * math.prod(layer.kernel.shape) * math.prod(places.shape[1:-1]))
    return found


def step_operations(generator: keras.Model, network: keras.Model | None, game: bool) -> list[int]:
    """Operations of one slice in a training step of each player, the adversary's first where there is a game.

    Backward, the gradients of a convolution's weights and of its input each cost what it costs forward. The generator's
    first convolution needs none of its input. The feature network passes the predicted path's gradient on to the mask; the
    reference's path is only run forward (D-013). The adversary needs all of the feature network's weights' gradients, along
    both paths, and none of its generator.
    """
    own, seen = forward_operations(generator), forward_operations(network) if network else [0]
    step = 3 * sum(own) - own[0] + 3 * sum(seen)
    return [sum(own) + 2 * (3 * sum(seen) - seen[0]), step] if game else [step]


def players(study: Study, loss: str) -> tuple[list[Learner], list[int]]:
    """Who takes a step, the adversary first where there is a game, and the operations of each for one slice."""
    recipe, size, network = study.recipe(loss), study.config.preprocessing.size_px, None
    if recipe.features:
        network = features.build(size, recipe.features["taps"], recipe.features["network"])
    learner = make_learner(recipe, size, seed=1, network=network)
    adversary = make_adversary(learner, recipe.training.beta_1, recipe.training.beta_2)
    operations = step_operations(learner.generator, network, adversary is not None)
    return [adversary, learner] if adversary else [learner], operations


def plain_convolutions(size: int, channels: int = 64, count: int = 4) -> keras.Model:
    """Nothing but convolutions, 3x3 and 64 to 64 channels, from slices (batch, size, size, 3) to a mean (batch, 64)."""
    image = keras.Input((size, size, 3))
    x = ops.repeat(image[..., :1], channels, axis=-1)
    for _ in range(count):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
    network = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    network.compile(jit_compile=keras.backend.backend() == "jax")
    return network


def read(batches: TrainingBatches, count: int) -> None:
    """Draw the first batches as a training does, with threads that read ahead."""
    with ReadAhead(batches) as ahead:
        for number in range(count):
            ahead[number]


def in_turn(calls: dict[str, list[Callable]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds (round, call) of everyone's calls, who come one after the other, in another order every round."""
    took, order = {name: [] for name in calls}, np.random.default_rng(0)
    for name in itertools.chain(*(order.permutation(list(calls)) for _ in range(WARM_UP + rounds))):
        moments = [time.perf_counter()]
        for call in calls[name]:
            call()
            moments.append(time.perf_counter())
        took[name].append(np.diff(moments))
    return {name: np.array(rows[WARM_UP:]) for name, rows in took.items()}


def first_device() -> tuple[str, int | None]:
    """The first device's name and, where the backend tells it, the most memory that was in use there, in bytes."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        return device.device_kind, (device.memory_stats() or {}).get("peak_bytes_in_use")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if found := tf.config.list_physical_devices("GPU"):
            name = tf.config.experimental.get_device_details(found[0]).get("device_name", "GPU")
            return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return "cpu", None


def report(study: Study, policy: str, steps: int, torch: InTorch | None = None) -> None:
    """Time everything in turn, and print; `torch`, if given, takes its turns too."""
    size, batch = study.config.preprocessing.size_px, study.config.training.batch_size
    losses = study.losses
    random = np.random.default_rng(0)
    images = random.random((4 * batch, size, size), np.float32)
    references = (random.random(images.shape) > 0.99).astype(np.uint8)
    augmentations = chosen_augmentations(study.config.augmentation)
    batches = TrainingBatches(images, references, np.arange(len(images)), "hard", batch, augmentations, seed=1)
    pair = batches[0]
    plain = plain_convolutions(size)
    compiled = {loss: players(study, loss) for loss in losses}
    steps_of = {
        loss: [functools.partial(player.step, *pair) for player in several] for loss, (several, _) in compiled.items()
    }
    others = {
        "plain": [functools.partial(plain.predict_on_batch, pair[0])],
        "input": [functools.partial(read, batches, DRAWN)],
    } | ({"torch": [torch.step]} if torch else {})
    seconds = {name: np.median(took, axis=0) for name, took in in_turn(others | steps_of, steps).items()}
    work = {loss: batch * np.array(operations) for loss, (_, operations) in compiled.items()}
    peak = batch * sum(forward_operations(plain)) / seconds["plain"].sum()

    print(f"{size} pixels, batches of {batch}, {policy}; median of {steps} steps\n")
    print("| loss | GFLOP a step | ms a step | slices/s | share of plain convolutions' speed |\n|---|---|---|---|---|")
    for loss in losses:
        done, took = work[loss].sum(), seconds[loss].sum()
        print(f"| {loss} | {done / 1e9:.1f} | {1e3 * took:.1f} | {batch / took:.1f} | {done / took / peak:.2f} |")
    print(f"\n- Plain convolutions, 3x3, 64 to 64 channels: {peak / 1e9:.0f} GFLOP/s.")
    if torch:
        weights = sum(math.prod(w.shape) for w in compiled["dice"][0][-1].generator.trainable_weights)
        assert torch.weights == weights, f"the network in PyTorch has {torch.weights} weights, ours {weights}"
        print(
            f"- The same network with Dice in PyTorch, channels last: {1e3 * seconds['torch'].sum():.1f} ms a step; ours "
            f"takes {seconds['dice'].sum() / seconds['torch'].sum():.2f} of that."
        )
    for loss in losses if "dice" in losses else ():
        if study.kinds[loss].startswith("siamese"):
            cost, predicted = (of[loss].sum() / of["dice"].sum() for of in (seconds, work))
            aim = f"; target at most {TARGET}" if loss == "siamese" else ""
            print(f"- {loss} over dice: {cost:.2f} measured / {predicted:.2f} predicted = {cost / predicted:.2f}{aim}.")
    if "siamese_minmax" in losses:
        every = study.recipe("siamese_minmax").settings["discriminator_every"]
        (adversary, step), counted = 1e3 * seconds["siamese_minmax"], work["siamese_minmax"] / 1e9
        print(
            f"- siamese_minmax: adversary {counted[0]:.1f} GFLOP in {adversary:.1f} ms, generator {counted[1]:.1f} in "
            f"{step:.1f} ms; with one adversary's step for {every} of the generator's, as configured, "
            f"{step + adversary / every:.1f} ms a step."
        )
    supply, demand = DRAWN * batch / seconds["input"].sum(), batch / min(seconds[loss].sum() for loss in losses)
    enough = "enough" if supply > demand else "TOO SLOW"
    print(
        f"- Input pipeline: {supply:.0f} slices/s, {supply / demand:.1f} times what the fastest step takes "
        f"({enough}: must be above 1)."
    )
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    name, used = first_device()
    on_device = f"; on the device {used / 2**30:.2f} GiB" if used else ""
    print(f"- Peak memory, all losses together: {most:.2f} GiB in the process{on_device}.")
    found = ", ".join(map(str, keras.distribution.list_devices()))
    print(f"- Keras {keras.__version__} on {keras.backend.backend()}, devices {found} ({name}).")


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("config", nargs="?", default="config/demo.yaml")
    parser.add_argument("--size", type=int, help="side of a slice in pixels")
    parser.add_argument("--filters", type=int, help="of the generator's first dense block")
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16", "auto"])
    parser.add_argument("--batch", type=int, help="slices in a batch")
    parser.add_argument("--losses", nargs="+", help="only these")
    parser.add_argument("--steps", type=int, default=20, help="timed, of each loss")
    parser.add_argument(
        "--against", choices=["torch"], help="time the same network in PyTorch as well, with the Dice loss"
    )
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch, for --against")
    arguments = parser.parse_args()

    study = open_study(arguments.config)
    study = study.changed(
        preprocessing={"size_px": arguments.size or study.config.preprocessing.size_px},
        generator={"filters": arguments.filters or study.config.generator.filters},
        training={"batch_size": arguments.batch or study.config.training.batch_size},
        losses={name: None for name in study.recipes if arguments.losses and name not in arguments.losses},
    )
    if arguments.against and study.kinds.get("dice") != "dice":
        parser.error("--against torch compares the Dice loss: add dice to --losses")
    with precision(arguments.precision or study.config.training.precision) as policy:
        size, batch = study.config.preprocessing.size_px, study.config.training.batch_size
        half = policy == "mixed_bfloat16"
        torch = InTorch(arguments.python, study.config.generator, size, batch, half) if arguments.against else None
        report(study, policy, arguments.steps, torch)
    if torch:
        torch.close()


if __name__ == "__main__":
    main()
