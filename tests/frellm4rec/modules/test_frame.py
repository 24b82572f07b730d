import torch

from frellm4rec.modules.frame import Frame


def test_packed_positions_are_the_valid_ones_and_padding_is_exactly_zero():
    frame = Frame.of(torch.tensor([2, 4, 1]), 4, 6)
    values = torch.arange(1.0, 25.0).reshape(3, 4, 2)
    values[~frame.is_valid] = torch.nan
    packed = frame.pack(values)
    assert packed.tolist() == [
        values[row, position].tolist() for row, n in enumerate([2, 4, 1]) for position in range(n)
    ]
    unpacked = frame.unpack(packed)
    assert torch.equal(unpacked[frame.is_valid], values[frame.is_valid])
    assert torch.equal(unpacked[~frame.is_valid], torch.zeros(5, 2))
    assert frame.newest(values).tolist() == [values[0, 1].tolist(), values[1, 3].tolist(), values[2, 0].tolist()]


def test_ages_count_back_from_the_newest_item():
    assert Frame.of(torch.tensor([2, 4]), 4, 6).ages.tolist() == [[1, 0, 0, 0], [3, 2, 1, 0]]


def test_gradients_pass_both_ways():
    frame = Frame.of(torch.tensor([2, 3]), 3, 3)
    values = torch.ones(2, 3, 1, requires_grad=True)
    (frame.unpack(frame.pack(values) ** 2) * 3).sum().backward()
    assert values.grad[..., 0].tolist() == [[6, 6, 0], [6, 6, 6]]
