"""Several orchestrators, one database: a job is in one journal, a journal has one owner, a server may vanish."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest

from haif.base import limits
from haif.base.errors import Conflict, ConnectionLost, Misuse, Overloaded, Reason
from haif.storage.service import Fenced, Move
from haif.storage.service.migrations import migrate
from haif.storage.service.postgres import Inheritance, PostgresJournal
from haif.storage.service.writer import Writer
from tests.support.postgres import Server, server

ANNE, BOB, CLEO = (letter * 32 for letter in (b"a", b"b", b"c"))


@pytest.fixture
async def url(postgres: Server) -> str:
    return await postgres.database()


async def sql(url: str, script: str, *values: object) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(script, *values)]
    finally:
        await connection.close()


async def entries(journal: PostgresJournal | Inheritance) -> list[bytes]:
    past = journal.past if isinstance(journal, Inheritance) else journal
    return [entry async for _, entry in past.replay()]


async def begin(journal: PostgresJournal, subject: bytes, *more: bytes) -> None:
    await journal.append_nowait([b"begun " + subject, *more], subject=subject, refused=lambda: None)


async def next_estate(journal: PostgresJournal) -> Inheritance:
    return await anext(journal.estates())


def move(subject: bytes) -> Move:
    return Move(subject, b"left " + subject, b"arrived " + subject)


# --- one owner --------------------------------------------------------------------------------------------------------


async def test_journals_beside_each_other_are_chains_of_their_own(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne, PostgresJournal(url, BOB) as bob:
        await asyncio.gather(*((anne if n % 2 else bob).append([b"%d" % n]) for n in range(40)))
        assert [b"%d" % n for n in range(1, 40, 2)] == await entries(anne)
        assert [b"%d" % n for n in range(0, 40, 2)] == await entries(bob)


async def test_an_empty_database_is_prepared_once_though_two_begin_at_the_same_time(url: str) -> None:
    async with AsyncExitStack() as stack:
        each = [PostgresJournal(url, name) for name in (ANNE, BOB, CLEO)]
        await asyncio.gather(*(stack.enter_async_context(journal) for journal in each))
        assert [(1,)] == await sql(url, "SELECT version FROM haif_schema")


async def test_a_later_schema_is_reached_from_where_the_database_is(url: str) -> None:
    connection = await asyncpg.connect(url)
    await migrate(connection, ("CREATE TABLE one (n INTEGER)",))
    with suppress(asyncpg.UndefinedTableError):
        await migrate(connection, ("CREATE TABLE one (n INTEGER)", "CREATE TABLE two (n INTEGER); DROP TABLE three"))
    assert await connection.fetchval("SELECT to_regclass('two')") is None, "all of a step or nothing"
    await migrate(connection, ("CREATE TABLE one (n INTEGER)", "CREATE TABLE two (n INTEGER)"))
    assert await connection.fetchval("SELECT max(version) FROM haif_schema") == 2
    await connection.close()


async def test_an_owner_that_lost_its_lease_writes_nothing_and_says_so(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        await anne.append([b"before"])
        await sql(url, "UPDATE chains SET token = token + 1")
        with pytest.raises(ConnectionLost, match="another took over its jobs") as caught:
            await anne.append([b"after"])
        assert Reason.CONNECTION_LOST is caught.value.reason
        for late in (anne.append([]), anne.append([b"later"]), next_estate(anne)):
            with pytest.raises(ConnectionLost, match="another took over"):
                await late
        assert [(b"before",)] == await sql(url, "SELECT entry FROM journal")


async def test_an_owner_that_writes_nothing_hears_of_its_loss_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_RENEW_SECONDS", 0.01)
    async with PostgresJournal(url, ANNE) as anne:
        await sql(url, "UPDATE chains SET token = token + 1")
        with pytest.raises(ConnectionLost, match="another took over"):
            await next_estate(anne)


async def test_an_answer_from_memory_is_refused_to_whoever_lost_its_lease(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        await sql(url, "UPDATE chains SET token = token + 1")
        with pytest.raises(ConnectionLost):
            await anne.append([])


async def test_a_lease_is_renewed_and_nobody_inherits_from_the_living(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LEASE_RENEW_SECONDS", 0.01), ("LEASE_WATCH_SECONDS", 0.01)):
        monkeypatch.setattr(limits, name, seconds)
    async with PostgresJournal(url, ANNE), PostgresJournal(url, BOB) as bob:
        waiting = asyncio.create_task(next_estate(bob))
        ends = set()
        while len(ends) < 5:
            ends |= set(await sql(url, "SELECT expires FROM chains WHERE chain = $1", ANNE))
        assert not waiting.done()
        waiting.cancel()


async def test_leaving_makes_durable_what_was_queued(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        written = [anne.append_nowait([b"%d" % n]) for n in range(20)]
        assert anne.statistics().waiting == 20
    await asyncio.gather(*written)
    with pytest.raises(ConnectionLost, match="closed"):
        await anne.append([b"more"])
    async with PostgresJournal(url, ANNE) as anne:
        assert [b"%d" % n for n in range(20)] == await entries(anne)


async def test_the_queue_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATABASE_WRITES_WAITING_MAX", 2)
    async with PostgresJournal(url, ANNE) as anne:
        outcomes = await asyncio.gather(*(anne.append([b"x"]) for _ in range(3)), return_exceptions=True)
        assert [None, None] == outcomes[:2]
        assert isinstance(outcomes[2], Overloaded)


async def nothing() -> None:
    """There is nothing to prepare."""


async def test_an_owner_that_lost_its_lease_rejoins_under_a_new_token_once_the_heir_has_what_was_alive(
    url: str,
) -> None:
    async with PostgresJournal(url, ANNE) as anne, PostgresJournal(url, BOB) as bob:
        await begin(anne, b"alive")
        await sql(url, "UPDATE chains SET token = token + 1, expires = clock_timestamp() WHERE chain = $1", ANNE)
        late = anne.append_nowait([b"late"], subject=b"alive")
        with pytest.raises(Fenced):
            await late
        estate = await next_estate(bob)
        read: list[bytes] = []

        async def prepare() -> None:
            read.extend(await entries(anne))
            with pytest.raises(Fenced):
                anne.check_room()

        rejoining = asyncio.create_task(anne.rejoin(prepare))
        await estate.move([move(b"alive")], last=True)
        await rejoining
        assert [b"begun alive", b"left alive"] == read
        await begin(anne, b"new")
        assert [b"begun alive", b"left alive", b"begun new"] == await entries(anne)
        assert [b"arrived alive"] == await anne.about(b"alive") == await entries(bob)


async def test_who_loses_its_lease_again_while_it_rejoins_may_try_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_RENEW_SECONDS", 0.01)

    async with PostgresJournal(url, ANNE) as anne:

        async def lose() -> None:
            await sql(url, "UPDATE chains SET token = token + 1, held = false")
            await asyncio.wait([anne._lease_of])

        await lose()
        with pytest.raises(Fenced):
            await anne.rejoin(lose)
        await anne.rejoin(nothing)
        await anne.append([b"on"])
        assert [b"on"] == await entries(anne)


async def test_who_finds_another_under_its_name_does_not_rejoin(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REJOIN_SECONDS", 0.0)
    async with PostgresJournal(url, ANNE) as anne:
        await sql(url, "UPDATE chains SET held = false")
        async with PostgresJournal(url, ANNE) as successor:
            with pytest.raises(Fenced):
                await anne.append([b"late"])
            with pytest.raises(Misuse, match="an orchestrator with this key is up already"):
                await anne.rejoin(nothing)
            await successor.append([b"on"])


# --- a job is in one journal ------------------------------------------------------------------------------------------


async def test_what_another_has_is_refused_before_anything_else_happens(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne, PostgresJournal(url, BOB) as bob:
        await begin(anne, b"job")
        refused: list[str] = []
        first = bob.append_nowait([b"mine"], subject=b"job", refused=lambda: refused.append("job"))
        again = bob.append_nowait([b"and on"], subject=b"job")
        other = bob.append_nowait([b"other"], subject=b"other", refused=lambda: refused.append("other"))
        first.add_done_callback(lambda _: refused.append("told"))
        with pytest.raises(Conflict, match="another orchestrator has this job") as caught:
            await first
        assert Reason.CONFLICT is caught.value.reason
        with pytest.raises(Conflict):
            await again
        await other
        assert ["job", "told"] == refused
        assert [b"other"] == await entries(bob)
        assert [b"begun job"] == await bob.about(b"job") == await anne.about(b"job")


async def test_of_many_that_race_for_the_same_jobs_each_is_in_one_journal(url: str) -> None:
    jobs = [b"%d" % n for n in range(60)]
    async with AsyncExitStack() as stack:
        each = [await stack.enter_async_context(PostgresJournal(url, name)) for name in (ANNE, BOB, CLEO)]

        async def race(journal: PostgresJournal, order: list[bytes]) -> set[bytes]:
            outcomes = await asyncio.gather(*(begin(journal, job) for job in order), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {type(None), Conflict}
            return {job for job, outcome in zip(order, outcomes, strict=True) if outcome is None}

        orders = (jobs, jobs[::-1], jobs[30:] + jobs[:30])
        won = await asyncio.gather(*(race(*pair) for pair in zip(each, orders, strict=True)))
        assert sorted(jobs) == sorted(job for some in won for job in some)
        for journal, some in zip(each, won, strict=True):
            assert {b"begun " + job for job in some} == set(await entries(journal))


# --- takeover ---------------------------------------------------------------------------------------------------------


async def test_what_is_alive_moves_to_the_heir_in_one_step_and_the_owner_may_come_back(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        await begin(anne, b"alive")
        await begin(anne, b"over", b"ended")
    async with PostgresJournal(url, BOB) as bob:
        estate = await next_estate(bob)
        assert ANNE == estate.chain
        assert [b"begun alive", b"begun over", b"ended"] == await entries(estate)
        coming_back = asyncio.create_task(PostgresJournal(url, ANNE).__aenter__())
        await estate.move([move(b"alive")], last=True)
        back = await coming_back
        assert [b"begun alive", b"begun over", b"ended", b"left alive"] == await entries(back)
        assert [b"arrived alive"] == await entries(bob) == await back.about(b"alive")
        assert [b"begun over", b"ended"] == await bob.about(b"over")
        await back.append([b"on"])
        with pytest.raises(Conflict, match="its owner came back"):
            await estate.move([move(b"over")], last=True)
        await bob.append([b"nothing happened"])
        assert [b"arrived alive", b"nothing happened"] == await entries(bob)
        await back.__aexit__(None, None, None)


async def test_more_than_fits_into_one_step_moves_in_several(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        for job in (b"1", b"2", b"3"):
            await begin(anne, job)
    async with PostgresJournal(url, BOB) as bob:
        estate = await next_estate(bob)
        await estate.move([move(b"1"), move(b"2")], last=False)
        await asyncio.gather(estate.move([move(b"3")], last=True), begin(bob, b"4"))
        assert [b"arrived 1", b"arrived 2", b"arrived 3", b"begun 4"] == await entries(bob)
        assert 6 == len(await entries(estate))


async def test_an_estate_has_one_heir_and_an_heir_who_dies_has_one_too(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        await begin(anne, b"job")
    async with PostgresJournal(url, CLEO) as cleo:
        async with PostgresJournal(url, BOB) as bob:
            first = await next_estate(bob)
            await sql(url, "UPDATE chains SET expires = clock_timestamp() WHERE chain = $1", ANNE)  # bob is late
            bob._estate = None
            second = await next_estate(cleo)
            assert ANNE == first.chain == second.chain
            await second.move([move(b"job")], last=True)
            with pytest.raises(Conflict):
                await first.move([move(b"job")], last=True)
        assert [b"arrived job"] == await entries(cleo)


async def test_an_heir_whose_own_journal_is_lost_moves_nothing(url: str) -> None:
    async with PostgresJournal(url, ANNE) as anne:
        await begin(anne, b"job")
    async with PostgresJournal(url, BOB) as bob:
        estate = await next_estate(bob)
        await sql(url, "UPDATE chains SET token = token + 1 WHERE chain = $1", BOB)
        with pytest.raises(ConnectionLost):
            await estate.move([move(b"job")], last=True)
    assert [(b"begun job",)] == await sql(url, "SELECT entry FROM journal")
    assert [(ANNE,)] == await sql(url, "SELECT chain FROM subjects")


# --- a server that goes away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before it arrived", "after it took place"])
async def test_a_write_whose_outcome_nobody_knows_takes_place_once(
    url: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    real, cut = Writer._add, [True]

    async def add(self: Writer, *arguments: object) -> None:
        if when == "after it took place":
            await real(self, *arguments)  # type: ignore[arg-type]
        if cut:
            cut.clear()
            raise ConnectionResetError
        if when == "before it arrived":
            await real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "_add", add)
    async with PostgresJournal(url, ANNE) as anne:
        await begin(anne, b"job")
        await begin(anne, b"next")
        assert [b"begun job", b"begun next"] == await entries(anne)


@pytest.fixture
def own() -> AsyncIterator[Server]:
    with server() as made:
        yield made


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_restarted_amid_appends_loses_nothing_and_doubles_nothing(
    own: Server, how: signal.Signals
) -> None:
    url = await own.database()
    async with PostgresJournal(url, ANNE) as anne, PostgresJournal(url, BOB) as bob:
        acknowledged: list[list[bytes]] = [[], []]

        async def append(journal: PostgresJournal, lane: int, told: list[bytes]) -> None:
            for n in range(60):
                await begin(journal, b"%d.%d" % (lane, n))
                told.append(b"begun %d.%d" % (lane, n))

        lanes = [
            asyncio.create_task(append(journal, 2 * lane + which, acknowledged[which]))
            for which, journal in enumerate((anne, bob))
            for lane in range(4)
        ]
        for _ in range(2):
            before = len(acknowledged[0])
            while len(acknowledged[0]) < before + 20:
                await asyncio.sleep(0)
            await asyncio.to_thread(own.stop, how)
            await asyncio.to_thread(own.start)
        await asyncio.gather(*lanes)
        for journal, told in zip((anne, bob), acknowledged, strict=True):
            assert sorted(told) == sorted(await entries(journal))


async def test_a_question_waits_for_the_server_so_long_and_no_longer(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STORE_FAREWELL_SECONDS", 0.1)
    url = await own.database()
    async with PostgresJournal(url, ANNE) as anne:
        await anne.append([b"one"])
        await asyncio.to_thread(own.stop)
        asking = asyncio.create_task(entries(anne))
        await asyncio.to_thread(own.start)
        assert [b"one"] == await asking
        await asyncio.to_thread(own.stop)
        monkeypatch.setattr(limits, "STORE_PATIENCE_SECONDS", 0.1)
        with pytest.raises(Overloaded, match="cannot be reached"):
            await entries(anne)
        lost = anne.append_nowait([b"two"])
    with pytest.raises(ConnectionLost, match="closed"):
        await lost


async def test_nobody_is_taken_for_dead_because_the_server_was_away(own: Server) -> None:
    url = await own.database()
    async with PostgresJournal(url, ANNE) as anne, PostgresJournal(url, BOB) as bob:
        looking = asyncio.create_task(next_estate(bob))
        await bob._lease.once(lambda connection: connection.fetchval("SELECT 1"))  # else it would not miss the server
        await asyncio.to_thread(own.stop)
        await asyncio.to_thread(own.start)
        await sql(url, "UPDATE chains SET expires = clock_timestamp() - interval '1 hour'")  # as after a long absence
        await anne.append([b"still here"])
        assert not looking.done()
        looking.cancel()


async def test_a_server_that_is_not_there_or_does_not_take_us_is_said_at_once(url: str) -> None:
    for wrong in (url.replace("port=5432", "port=5433"), url.replace("haif@/", "nobody@/")):
        with pytest.raises(Misuse, match="--store: the database does not take us"):
            await PostgresJournal(wrong, ANNE).__aenter__()
