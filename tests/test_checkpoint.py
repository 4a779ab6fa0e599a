"""Checkpoints: what is saved is loaded, in every float format; one number that is not finite is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.errors import InputError
from utnet.model import UTNet


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "best"
    config = Config(model=ModelConfig(size_px=64, num_blocks=1, refiner="none"))
    model = UTNet(config.model)
    save_checkpoint(folder, model, config)
    return folder, model.state_dict()


def replace_weights(folder, target, change):
    target.mkdir()
    (target / "run.json").write_bytes((folder / "run.json").read_bytes())
    state = {name: change(name, tensor) for name, tensor in load_file(folder / "weights.safetensors").items()}
    save_file(state, target / "weights.safetensors")
    return target


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_loaded_as_saved_in_memory_aligned_as_torchs(saved, dtype, tmp_path):
    folder, state = saved
    loaded = load_checkpoint(replace_weights(folder, tmp_path / "c", lambda _, t: t.to(dtype)))[0].state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in loaded.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].to(dtype).float())
        assert tensor.data_ptr() % 64 == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_number_that_is_not_finite_is_refused(saved, value, dtype, tmp_path):
    folder, state = saved
    damaged = max(state, key=lambda name: state[name].numel())

    def change(name, tensor):
        tensor = tensor.to(dtype)
        if name == damaged:
            tensor.view(-1)[tensor.numel() // 2] = value
        return tensor

    with pytest.raises(InputError, match=f"{damaged} holds NaN"):
        load_checkpoint(replace_weights(folder, tmp_path / "c", change))


def test_a_file_cut_short_is_refused(saved, tmp_path):
    target = replace_weights(saved[0], tmp_path / "c", lambda _, t: t)
    data = (target / "weights.safetensors").read_bytes()
    (target / "weights.safetensors").write_bytes(data[:-4])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_checkpoint(target)
