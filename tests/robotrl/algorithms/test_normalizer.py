"""Running statistics: batches merge exactly, and nothing but `update` changes them."""

import numpy as np
import onnxruntime
import pytest
import torch

from robotrl.algorithms.normalizer import Normalizer


def test_statistics_of_one_batch_by_hand():
    normalizer = Normalizer(1)

    normalizer.update(torch.tensor([[1.0], [3.0]]))

    assert normalizer.mean.item() == 2
    assert normalizer.var.item() == 1
    assert normalizer.count.item() == 2


def test_second_batch_merges_by_hand():
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[1.0], [3.0]]))

    normalizer.update(torch.tensor([[8.0]]))

    # 1, 3, 8: mean 4, variance (9 + 1 + 16) / 3
    assert normalizer.mean.item() == pytest.approx(4)
    assert normalizer.var.item() == pytest.approx(26 / 3)


def test_many_batches_give_the_statistics_of_all_data():
    data = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * 3 + 50
    normalizer = Normalizer(3)

    for batch in data.split([1, 2, 7, 90, 400, 500]):
        normalizer.update(batch)

    data = data.double()
    torch.testing.assert_close(normalizer.mean, data.mean(dim=0))
    torch.testing.assert_close(normalizer.var, data.var(dim=0, correction=0))


def test_batches_of_any_size_and_scale_merge_to_what_numpy_finds_in_all_of_them():
    rng = np.random.default_rng(0)
    sizes = [1, 1, 500, 3, 64]
    batches = [rng.normal(10.0**k, 3.0**k, (size, 2)) for k, size in enumerate(sizes, start=-2)]
    normalizer = Normalizer(2, eps=0.0, clip=1e9)

    for batch in batches:
        normalizer.update(torch.from_numpy(batch))

    everything = np.concatenate(batches)
    mean, std = everything.mean(axis=0), everything.std(axis=0)
    x = torch.from_numpy(batches[2])
    np.testing.assert_allclose(normalizer.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, std, rtol=1e-6)
    np.testing.assert_allclose(normalizer(x), (batches[2] - mean) / std, rtol=1e-5, atol=1e-5)


def test_time_and_world_are_both_samples():
    data = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0))
    stacked, flat = Normalizer(2), Normalizer(2)

    stacked.update(data)
    flat.update(data.reshape(20, 2))

    assert torch.equal(stacked.mean, flat.mean)
    assert torch.equal(stacked.var, flat.var)


def test_small_spread_around_a_large_mean_is_kept():
    data = 1000 + 0.1 * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    normalizer = Normalizer(1)

    for batch in data.split(100):
        normalizer.update(batch)

    assert normalizer.var.item() == pytest.approx(data.double().var().item(), rel=0.01)


def test_single_rows_still_count_after_fifty_million():
    normalizer = Normalizer(1)
    normalizer.load_state_dict(
        {"mean": torch.tensor([100.0]), "var": torch.tensor([4.0]), "count": torch.tensor(5e7)}
    )

    for _ in range(1000):
        normalizer.update(torch.tensor([[103.0]]))

    # n of N + n rows are 3 off: a share s = n / (N + n) moves the mean by 3 s, and the variance
    # becomes (1 - s) 4 + s (1 - s) 9.
    # float32 has steps of 8e-6 there, and each row moves the mean by 6e-8.
    share = 1000 / (5e7 + 1000)
    assert normalizer.mean.item() - 100 == pytest.approx(3 * share, rel=1e-6)
    assert normalizer.var.item() - 4 == pytest.approx((9 * (1 - share) - 4) * share, rel=1e-6)


def test_normalised_data_keeps_its_own_type():
    normalizer = Normalizer(2)
    normalizer.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))

    for dtype in (torch.float32, torch.float64):
        assert normalizer(torch.ones(1, 2, dtype=dtype)).dtype == dtype
        assert normalizer.inverse(torch.ones(1, 2, dtype=dtype)).dtype == dtype


def test_normalised_data_has_zero_mean_and_unit_variance():
    data = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * 5 - 3
    normalizer = Normalizer(2)
    normalizer.update(data)

    normalised = normalizer(data)

    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=0, correction=0), torch.ones(2))


def test_outliers_are_clipped():
    normalizer = Normalizer(1, clip=10.0)

    assert normalizer(torch.tensor([[1e6], [-1e6]])).tolist() == [[10.0], [-10.0]]


def test_what_is_zero_at_times_is_divided_by_its_kurtosis_too():
    felt = torch.zeros(400, 4)
    felt[:4, 0] = torch.tensor([5.0, -5.0, 5.0, -5.0])  # in 1 of 100 rows
    felt[:, 1] = torch.linspace(-9, 9, 400) ** 5  # never zero, far away at times
    felt[1:, 2] = torch.linspace(-9, 9, 399) ** 5 + 1e-3  # zero in 1 of 400
    felt[::2, 3] = torch.linspace(-1, 1, 200)  # of kurtosis 2 · 9 / 5, but for its steps
    plain, sparse = Normalizer(4, eps=0.0), Normalizer(4, eps=0.0, sparse=True)
    for batch in felt.split([3, 7, 390]):
        plain.update(batch)
        sparse.update(batch)

    # rms 0.5, kurtosis 5⁴ · 0.01 / 0.5⁴ = 100: 10 away becomes 10 · 3 / 100
    assert plain(felt)[:2, 0].tolist() == pytest.approx([10, -10])
    assert sparse(felt)[:2, 0].tolist() == pytest.approx([0.3, -0.3])
    assert torch.equal(sparse(felt)[:, 1], plain(felt)[:, 1])
    x = felt[:, 2].double()
    third = x.pow(4).mean() / x.square().mean().square() / 3
    assert third > 1.5
    assert sparse.std[2].item() == pytest.approx(plain.std[2].item() * (0.75 + 0.25 * third.item()))
    assert sparse.std[3].item() == pytest.approx(plain.std[3].item() * 2 * 9 / 5 / 3, rel=0.02)


def test_little_kurtosis_does_not_magnify_what_is_zero_at_times():
    half = (torch.arange(100)[:, None] % 2).float()  # a foot on the ground at half of the time
    plain, sparse = Normalizer(1), Normalizer(1, sparse=True)
    plain.update(half)
    sparse.update(half)

    assert torch.equal(sparse(half), plain(half))  # of kurtosis 2


def test_what_was_never_felt_stays_finite_and_counts_when_it_is():
    normalizer = Normalizer(1, sparse=True)
    normalizer.update(torch.zeros(99, 1))

    assert normalizer(torch.zeros(1, 1)).item() == 0
    normalizer.update(torch.full((1, 1), -5.0))

    # mean -0.05, standard deviation 5 · sqrt(0.01 · 0.99), kurtosis 100
    expected = -4.95 / (5 * (0.01 * 0.99) ** 0.5 * 100 / 3)
    assert normalizer(torch.full((1, 1), -5.0)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter
def test_onnxruntime_normalises_alike_also_what_was_never_felt():
    felt = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    felt[:, 0] = 0
    felt[::2, 1] = 0
    normalizer = Normalizer(3, sparse=True)
    normalizer.update(felt)

    program = torch.onnx.export(normalizer, (felt,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: felt.numpy()})

    np.testing.assert_allclose(found, normalizer(felt), rtol=1e-5, atol=1e-6)


def test_constant_input_stays_finite():
    normalizer = Normalizer(1, eps=1e-6)
    normalizer.update(torch.full((100, 1), 7.0))

    # Variance 0: a deviation of 0.001 is divided by sqrt(1e-6) = 0.001.
    assert normalizer(torch.tensor([[7.0], [7.001]])).tolist() == [[0.0], [pytest.approx(1, 1e-3)]]


def test_inverse_undoes_the_normalisation():
    data = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) * 4 + 9
    normalizer = Normalizer(2)
    normalizer.update(data)

    torch.testing.assert_close(normalizer.inverse(normalizer(data)), data)


def test_use_does_not_change_the_statistics_even_in_training_mode():
    normalizer = Normalizer(1).train()
    normalizer.update(torch.tensor([[1.0], [3.0]]))

    normalizer(torch.full((100, 1), 1000.0))

    assert (normalizer.mean.item(), normalizer.var.item(), normalizer.count.item()) == (2, 1, 2)


@pytest.mark.parametrize("sparse", [False, True])
def test_saved_statistics_are_restored_to_the_bit(sparse):
    normalizer, restored = (Normalizer(3, sparse=sparse) for _ in range(2))
    normalizer.update(torch.randn(1001, 3, generator=torch.Generator().manual_seed(0)))

    restored.load_state_dict(normalizer.state_dict())

    for batch in torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1)).relu():
        normalizer.update(batch)
        restored.update(batch)
    assert torch.equal(normalizer.mean, restored.mean)
    assert torch.equal(normalizer.var, restored.var)
    assert torch.equal(normalizer.count, restored.count)
    assert torch.equal(normalizer.std, restored.std)
