"""Several processes compute what one does: batch norm, mining, whole trainings; and they stop together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_tools import SMALL, start, together, train, train_with_fault
from safetensors.torch import load_file
from torch import Tensor, nn

from segmodel.common import distributed
from segmodel.common.distributed import synchronise_batch_norm
from segmodel.common.errors import UserError
from segmodel.model.config import ModelConfig
from segmodel.model.head import SegmentationHead
from segmodel.training.objective import hard_pixel_loss
from segmodel.training.stopping import StopSignal
from segmodel.training.trainer import Trainer

CPU = torch.device("cpu")


def difference(first: Path, second: Path) -> float:
    """The largest difference of any weight, statistic or momentum of two runs."""
    ours, theirs = load_file(first / "last.safetensors"), load_file(second / "last.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(value.dtype != torch.float32 for value in ours.values())
    return max((value - theirs[name]).abs().max().item() for name, value in ours.items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run of one process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert train([*SMALL, "--output", str(folder)]) == (0, "")
    return folder


@pytest.mark.parametrize("world", [2, 4])
def test_processes_that_share_a_batch_give_the_weights_of_one(alone, tmp_path, world):
    # float64 sums in another order differ by 1e-16 each; twenty steps may amplify that a millionfold
    assert together(world, train, [*SMALL, "--output", str(tmp_path / "run")]) == [(0, "")] * world
    assert difference(alone, tmp_path / "run") < 1e-9
    expected, got = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
        for folder in (alone, tmp_path / "run")
    )
    assert [line["loss"] for line in expected] == pytest.approx([line["loss"] for line in got], abs=2e-6)  # rounded
    cards = [json.loads((folder / "last.json").read_text()) for folder in (alone, tmp_path / "run")]
    assert cards[0]["scores"] == cards[1]["scores"]


def test_a_signal_to_one_stops_all_and_another_number_of_processes_goes_on(alone, tmp_path):
    folder = tmp_path / "run"
    stopped = together(2, train_with_fault, "term", 7, [*SMALL, "--output", str(folder)])
    assert [status for status, _ in stopped] == [143, 143]
    assert stopped[0][1] == f"stopped at step 7 of 20; to go on: --resume {folder}\n"
    assert train(["--resume", str(folder)]) == (0, "")
    assert difference(alone, folder) < 1e-9


def test_a_broken_file_that_one_meets_costs_no_step(alone, tmp_path):
    folder = tmp_path / "run"
    answers = together(2, train_with_fault, "broken", 7, [*SMALL, "--output", str(folder)])
    assert answers[1] == (2, "segmodel.train: error: process 1: b.png: broken\n")
    assert answers[0][0] == 1
    assert "another process cannot go on, see its error; the state is saved" in answers[0][1]
    assert json.loads((folder / "last.json").read_text())["step"] == 6
    assert train(["--resume", str(folder)]) == (0, "")
    assert difference(alone, folder) < 1e-9


def test_a_signal_that_comes_while_the_processes_agree_waits_for_the_next_time(monkeypatch):
    trainer, stop = object.__new__(Trainer), StopSignal()
    trainer.device = torch.device("cpu")

    def late(x):
        stop.number = signal.SIGTERM
        return x

    monkeypatch.setattr(distributed, "total", late)
    assert stop.agreed(trainer.device) == (False, False)
    assert stop.agreed(trainer.device, failed=True) == (True, True)
    assert trainer.next_batch(None, stop) is None, "no batch is waited for any more"


def test_no_parameter_of_the_crf_is_trained_without_iterations():
    """A parameter without a gradient would keep several processes waiting for it."""
    for iterations in (0, 1):
        head = SegmentationHead(4, 2, ModelConfig(guidance_iterations=iterations))
        assert {parameter.requires_grad for parameter in head.crf.parameters()} == {iterations > 0}


@pytest.mark.parametrize(("fault", "minutes"), [("kill", "10"), ("hang", "0.1")])
def test_when_one_is_gone_the_others_stop_with_the_reason(tmp_path, fault, minutes):
    folder = tmp_path / "run"
    arguments = [*SMALL, "--timeout-minutes", minutes, "--output", str(folder)]
    processes, queue = start(2, train_with_fault, fault, 3, arguments)
    try:
        rank, (status, text) = queue.get(timeout=100)  # well before ten minutes; the hanging one after six seconds
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert (rank, status) == (0, 1)
    assert text.startswith("segmodel.train: error: process 0: ")
    assert len(text.splitlines()) == 1
    assert ("Timed out" if fault == "hang" else "onnection") in text, text
    assert json.loads((folder / "last.json").read_text())["finished"] is False


FAULTY = """
import os, sys
from distributed_tools import train_with_fault
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
status, errors = train_with_fault("kill" if first else "none", 6 if first else 0, sys.argv[1:])
sys.stderr.write(errors)
sys.exit(status)
"""


def test_torchrun_starts_again_from_the_checkpoint(alone, tmp_path):
    script, folder = tmp_path / "faulty.py", tmp_path / "run"
    script.write_text(FAULTY)
    arguments = [*SMALL, "--checkpoint-minutes", "0", "--output", str(folder)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    paths = os.pathsep.join(str(Path(__file__).parents[level]) for level in (1, 2))
    done = subprocess.run(
        [sys.executable, *launch, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 21))
    assert sum(line["kind"] == "start" for line in lines) == 1
    assert difference(alone, folder) < 1e-9


def test_a_batch_that_cannot_be_shared_is_named(tmp_path):
    answers = together(2, train, [*SMALL, "--batch-size", "9", "--output", str(tmp_path / "run")])
    assert answers[1] == (2, "segmodel.train: error: process 1: batch_size: expected a multiple of 2 (2 processes, "
                          "1 accumulated parts), got 9\n")  # fmt: skip
    assert not (tmp_path / "run").exists()


def whole_and_share() -> tuple[Tensor, slice]:
    """A batch of four on every process, and the two images of this one."""
    whole = torch.randn(4, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    return whole, slice(2 * distributed.rank(), 2 * distributed.rank() + 2)


def normalise(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of a batch norm under a loss that is no mere sum."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y.sin() * torch.arange(y.shape[-1])).sum().backward()
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


def check_batch_norm() -> list[float]:
    """Largest differences of a shared batch norm from one over the whole batch."""
    with distributed.process_group(CPU, timeout_minutes=1):
        whole, share = whole_and_share()
        errors = []
        for momentum in (0.1, None):
            torch.manual_seed(1)
            norm = nn.BatchNorm2d(3, momentum=momentum).double()
            nn.init.normal_(norm.weight)
            own = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum)).double()
            own[0].load_state_dict(norm.state_dict())
            shared = distributed.synchronise_batch_norm(own, CPU)[0]
            for _ in range(2):
                norm.zero_grad()
                shared.zero_grad()
                y, d_x, *rest = normalise(norm, whole)
                got_y, got_d_x, d_weight, d_bias, *statistics = normalise(shared, whole[share])
                got = [
                    got_y,
                    got_d_x,
                    distributed.total(d_weight),
                    distributed.total(d_bias),
                    *statistics,
                ]
                expected = [y[share], d_x[share], *rest]
                errors += [(a - b).abs().max().item() for a, b in zip(expected, got, strict=True)]
            assert shared.num_batches_tracked == 2
            assert torch.equal(own.eval()(whole), shared(whole))
        return errors


def test_batch_norm_over_processes_is_that_of_the_whole_batch():
    for errors in together(2, check_batch_norm):
        assert max(errors) < 1e-12  # a few hundred float64 roundings of values around 10


def check_mining() -> list[float]:
    """Largest differences of loss and gradients mined over processes from those of the whole batch."""
    with distributed.process_group(CPU, timeout_minutes=1):
        scores, share = whole_and_share()
        labels = torch.randint(0, 3, (4, 5, 6), generator=torch.Generator().manual_seed(2))
        labels[0, 1:4] = 255
        labels[:, 4, 4] = 255
        errors = []
        weights = torch.tensor([0.3, 1.0, 7.0])
        for mining, class_weights in (("pixel", None), ("block", None), ("pixel", weights), ("block", weights)):
            options = {"mining": mining, "class_weights": class_weights}
            for keep in (0.01, 0.5, 1.0):
                for truth in (labels, labels.index_fill(0, torch.tensor([0, 1]), 255), torch.full_like(labels, 255)):
                    x = scores.clone().requires_grad_()
                    loss = hard_pixel_loss(x, truth, keep=keep, **options)
                    loss.backward()
                    own = scores[share].clone().requires_grad_()
                    part = hard_pixel_loss(own, truth[share], keep=keep, across=True, **options) / 2
                    part.backward()
                    errors.append((x.grad[share] - own.grad).abs().max().item())
                    errors.append((distributed.total(part.detach()) - loss).abs().item())
        return errors


def test_mining_over_processes_is_that_of_the_whole_batch():
    for errors in together(2, check_mining):
        assert max(errors) < 1e-14


def test_class_weights_counted_and_applied_by_processes_are_those_of_one(tmp_path):
    arguments = [*SMALL, "--class-weights", "median_frequency", "--output"]
    assert train([*arguments, str(tmp_path / "one")]) == (0, "")
    assert together(2, train, [*arguments, str(tmp_path / "two")]) == [(0, "")] * 2
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-9
    cards = [json.loads((tmp_path / name / "last.json").read_text()) for name in ("one", "two")]
    assert cards[0]["class_weights"] == cards[1]["class_weights"]


def test_accumulated_parts_do_not_depend_on_the_number_of_processes_or_on_checkpointing(tmp_path):
    arguments = [*SMALL, "--steps", "5", "--accumulate", "2", "--output"]
    assert train([*arguments, str(tmp_path / "one")]) == (0, "")
    assert together(2, train, [*arguments, str(tmp_path / "two"), "--checkpoint-activations"]) == [(0, "")] * 2
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-9


class NormAct(nn.BatchNorm2d):
    """As timm has them: the norm holds an activation."""

    def forward(self, x):
        return super().forward(x).relu()


def test_plain_batch_norms_are_replaced():
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3))
    assert {type(norm) for norm in synchronise_batch_norm(norms, torch.device("cuda"))} == {nn.SyncBatchNorm}
    with pytest.raises(UserError, match=r"^BatchNorm1d: cannot be synchronised between processes on cpu"):
        synchronise_batch_norm(nn.Sequential(nn.BatchNorm1d(3)), torch.device("cpu"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_norm_that_does_more_is_not_replaced_by_one_that_does_not(device):
    with pytest.raises(UserError, match=r"^NormAct: cannot be synchronised between processes on"):
        synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(3), NormAct(3)), torch.device(device))
