"""Training from pictures to logits: what learns, what stays, and going on after a kill."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pipeline import finetune, kinds
from pipeline.backbones import catalogue
from pipeline.core.backbone import Backbone
from pipeline.core.errors import DeviceError
from pipeline.core.paths import FINETUNED
from pipeline.examples.files import digest
from pipeline.heads.description import HeadDescription
from pipeline.heads.head import Head
from pipeline.kinds import Preprocessing
from pipeline.kinds.image.parameters import Augment
from pipeline.store.places import checkpoints_folder
from pipeline.tables import power
from pipeline.transfer import finetuning
from pipeline.transfer.checkpoint import checkpoint_file
from pipeline.transfer.examples import Feed, Labelled
from pipeline.transfer.finetuning import UNMEASURED, train_network
from pipeline.transfer.measure import measure
from pipeline.transfer.network import Network, _raised, blocks
from pipeline.transfer.recipe import Recipe

SIZE = Preprocessing(24, 24, "bilinear", (0.5,) * 3, (0.5,) * 3)
RANGES = Augment(views=1, rotate=15.0, scale=0.1, hflip=0.5, vflip=0.0, seed=0)
FEED = Feed(kinds.named("image"), SIZE, RANGES)
RECIPE = Recipe(2, 3, 8, 0.01, 0.5, 0.01, "kept", 0, (1.0, 1.0))
CPU = torch.device("cpu")


class Tiny(nn.Module):
    """Three blocks of convolution and normalisation, from 8-bit pixels to 8 features."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(self.block(a, b) for a, b in ((3, 8), (8, 8), (8, 8))))

    @staticmethod
    def block(inputs, outputs):
        layers = nn.Conv2d(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU()
        block = nn.Module()
        block.layers, block.forward = nn.Sequential(*layers), None
        block.forward = block.layers.forward
        return block

    def forward(self, seen):
        return self.layers(seen.permute(0, 3, 1, 2).float() / 255).mean(dim=(2, 3))


class Shared(Tiny):
    """The last two blocks, each a module of its own, have one convolution between them."""

    def __init__(self):
        super().__init__()
        self.layers[2].layers[0] = self.layers[1].layers[0]


def tiny(outputs=2):
    head = Head(np.zeros((outputs, 8), np.float32), np.zeros(outputs, np.float32))
    return Network(Tiny(), head, power=0.5)


def labelled(folder, count, seed):
    """Light and dark pictures, written where the working folder is."""
    random = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        path = Path(folder) / f"{seed}-{number:03}.png"
        if not path.exists():
            pixels = random.integers(0, 200, (24, 30, 3)) + 55 * (number % 2)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        paths.append(str(path))
    digests = [digest(Path(path).read_bytes()) for path in paths]
    return Labelled(paths, digests, np.arange(count) % 2)


def run(network, **changes):
    recipe = Recipe(**vars(RECIPE) | changes)
    train, val = labelled("data/raw/light", 24, 1), labelled("data/raw/light", 10, 2)
    return train_network(network, train, val, UNMEASURED, FEED, recipe, CPU, "finetune")


def result(epochs):
    """What comes of a run: a digest of all weights, and the curve."""
    trained = run(network := tiny(), epochs=epochs)
    weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return digest(weights), repr(trained.curve[1:])


@pytest.mark.parametrize("name", ["efficientnet_lite0", "torchvision:resnet18", "timm:resnet26"])
def test_blocks_hold_every_weight_once_in_the_order_of_the_forward_pass(name):
    module = catalogue.load(Backbone.parse(name, "random")).module
    found = blocks(module)
    of_blocks = [id(p) for block in found for part in block for p in part.parameters()]
    assert sorted(of_blocks) == sorted(id(p) for p in module.parameters())
    met = []
    for number, block in enumerate(found):
        block[0].register_forward_hook(lambda *_, number=number: met.append(number))
    with torch.inference_mode():
        module(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert met == list(range(len(found)))
    assert len(found) >= 9


def test_raising_to_a_power_is_that_of_the_frozen_head_with_a_finite_slope_at_zero():
    features = torch.tensor([[-2.0, -0.002, 0.0, 0.0005, 0.3, 4.0]], requires_grad=True)
    raised = _raised(features, 0.5)
    wanted = power.raised(features.detach().numpy(), 0.5)
    np.testing.assert_allclose(raised.detach().numpy(), wanted, atol=0.01)
    np.testing.assert_allclose(raised.detach().numpy()[:, [0, 4, 5]], wanted[:, [0, 4, 5]])
    raised.sum().backward()
    assert torch.isfinite(features.grad).all()


def test_asked_and_not_trained_it_raises_features_as_the_frozen_head_has_them():
    network = tiny().eval()
    with torch.no_grad():
        network.head[0].weight.copy_(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))
    seen = torch.zeros(1, 24, 24, 3, dtype=torch.uint8)
    with torch.inference_mode():
        raised = power.raised(network.backbone(seen).numpy(), network.power)
        wanted = network.head(torch.from_numpy(raised))
        np.testing.assert_allclose(network(seen), wanted, atol=1e-6)


def test_a_head_with_a_hidden_layer_goes_in_and_comes_out_as_it_was():
    random = np.random.default_rng(0)
    shapes = (2, 5), (2,), (5, 8), (5,)
    head = Head(*(random.standard_normal(shape).astype(np.float32) for shape in shapes))
    network = Network(Tiny(), head, power=1.0).eval()
    again = network.as_head()
    for name, array in vars(head).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    seen = torch.randint(256, (3, 24, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        features = network.backbone(seen).numpy()
        np.testing.assert_allclose(network(seen), head.logits(features), atol=1e-5)


def test_only_the_last_blocks_and_the_head_learn(project):
    network, before = tiny(), tiny().state_dict()
    run(network, epochs=1, blocks=1)
    changed = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {
        *("backbone.layers.2.layers.0.weight", "backbone.layers.2.layers.0.bias"),
        *("backbone.layers.2.layers.1.weight", "backbone.layers.2.layers.1.bias"),
        *("head.0.weight", "head.0.bias"),
    }


def test_statistics_follow_the_pictures_only_where_asked_and_only_in_blocks_that_learn(project):
    network, before = tiny(), tiny().state_dict()
    run(network, epochs=1, blocks=1, batch_norm="updated")
    after = network.state_dict()
    means = [f"backbone.layers.{number}.layers.1.running_mean" for number in range(3)]
    assert [torch.equal(after[name], before[name]) for name in means] == [True, True, False]


def test_blocks_farther_down_learn_more_slowly(project):
    moved = {}
    for decay in (1.0, 0.01):
        network, before = tiny(), tiny().state_dict()
        run(network, epochs=1, blocks=2, layer_decay=decay)
        name = "backbone.layers.1.layers.0.weight"
        moved[decay] = (network.state_dict()[name] - before[name]).abs().max()
    assert moved[0.01] < 0.01 * moved[1.0]


def test_it_learns_and_keeps_the_epoch_of_the_lowest_validation_loss(project):
    network = tiny()
    result = run(network, epochs=6, blocks=None)
    losses = [figures.val_loss for figures in result.curve[1:]]
    assert result.curve[result.best].val_loss == min(losses) < math.log(2)
    logits = finetuning.answers(network, labelled("data/raw/light", 10, 2), FEED, 4)
    loss, _ = measure(logits, np.arange(10) % 2)
    assert loss == pytest.approx(min(losses), abs=1e-6)


def test_a_class_that_weighs_nothing_is_not_learnt(project):
    network = tiny()
    result = run(network, class_weights=(1.0, 1e-6), epochs=6, blocks=None)
    logits = finetuning.answers(network, labelled("data/raw/light", 10, 2), FEED, 4)
    assert (logits.argmax(axis=1) == 0).all()
    loss, _ = measure(logits[::2], np.zeros(5, np.int64))  # of the other class alone
    assert result.curve[result.best].val_loss == pytest.approx(loss, abs=1e-4)


def test_a_gpu_without_enough_memory_is_one_line_that_says_what_to_lower(project):
    """What PyTorch raises then; no GPU is to be had here."""

    class Large(Tiny):
        def forward(self, seen):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    network = Network(Large(), Head(np.zeros((2, 8), "f4"), np.zeros(2, "f4")), power=0.5)
    with (
        pytest.raises(DeviceError, match=r"lower finetune\.batch_size"),
        finetuning.within_memory("finetune.batch_size"),
    ):
        run(network)


def test_a_loss_that_is_no_number_ends_it_with_a_line_and_keeps_what_was(project, capsys):
    network, before = tiny(), tiny().state_dict()
    result = run(network, learning_rate=1e30)
    assert "diverged: the training loss became nan in epoch 1" in result.status
    assert "lower finetune.learning_rate" in capsys.readouterr().out
    assert result.best == 0
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def kill_at(words, script):
    """Run the script in a process of its own, and kill it when it prints the words."""
    command = [sys.executable, "-u", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if words in line:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_whole_epoch_to_the_same_bytes(project, capsys):
    kill_at("epoch 3 of 12", "from tests.transfer.test_finetuning import result; result(12)")
    resumed = result(12)
    assert "continuing after epoch" in capsys.readouterr().out
    for file in checkpoints_folder().iterdir():
        file.unlink()
    assert result(12) == resumed
    assert "continuing" not in capsys.readouterr().out


def test_a_damaged_checkpoint_is_begun_anew(project, capsys):
    first = run(tiny())
    content = bytearray(first.checkpoint.read_bytes())
    first.checkpoint.write_bytes(content[: len(content) // 2])
    again = run(tiny())
    assert "is damaged" in capsys.readouterr().out
    assert again.curve[1:] == first.curve[1:]


def test_a_convolution_that_stands_in_two_blocks_learns_once_and_is_kept(project, capsys):
    def shared():
        return Network(Shared(), tiny().as_head(), power=0.5)

    first = run(shared(), epochs=2, blocks=2)
    again = run(network := shared(), epochs=2, blocks=2)  # goes on where the first ended
    assert "continuing after epoch 2" in capsys.readouterr().out
    assert again.curve[1:] == first.curve[1:]
    finetune.save(network, True, HeadDescription([*"abc"], 0.5))
    found = load_file(FINETUNED / "backbone.safetensors")
    weights = [found[f"layers.{block}.layers.0.weight"] for block in (1, 2)]
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], shared().backbone.layers[1].layers[0].weight)


def test_another_recipe_has_another_checkpoint(project):
    changes = ({"seed": 0}, {"seed": 1}, {"class_weights": (1.0, 2.0)})
    files = {run(tiny(), epochs=1, **change).checkpoint for change in changes}
    assert len(files) == 3


def test_pictures_read_or_scaled_in_another_way_have_another_checkpoint(project):
    """A network from scratch starts with the same weights, whatever its pixels are."""
    train = labelled("data/raw/light", 4, 1)
    feeds = [
        FEED,
        replace(FEED, kind=kinds.named("image range=file")),
        replace(FEED, kind=kinds.named("image channels=1")),
        replace(FEED, preprocessing=SIZE._replace(crop=20)),
    ]
    files = {checkpoint_file(tiny(), train, train, feed, RECIPE, CPU) for feed in feeds}
    assert len(files) == len(feeds)
    assert checkpoint_file(tiny(), train, train, FEED, RECIPE, CPU) in files
