from haif.worker.hot import Hot


def test_the_least_recent_beginnings_go_first() -> None:
    hot = Hot(most=3)
    hot.add([b"1", b"2", b"3"])
    hot.add([b"1", b"4"])
    assert [b"3", b"1", b"4"] == hot.tags(0)


def test_a_new_child_knows_nothing_of_what_the_old_one_computed() -> None:
    hot = Hot()
    hot.add([b"1"])
    assert [] == hot.tags(1)
    hot.add([b"2"])
    assert [b"2"] == hot.tags(1)
