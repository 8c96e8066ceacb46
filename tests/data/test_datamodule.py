from mmfm.data.datamodule import EpochShuffle


def test_every_epoch_has_its_own_order_and_keeps_it():
    shuffle = EpochShuffle(50, seed=3)
    first = list(shuffle)
    shuffle.set_epoch(1)
    second = list(shuffle)
    resumed = EpochShuffle(50, seed=3)
    resumed.set_epoch(1)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second
    assert list(resumed) == second
