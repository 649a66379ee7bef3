"Durable answers: SQLite and PostgreSQL alike, in threads, in processes, and when a process is killed."
import json, multiprocessing, os, pwd, shutil, signal, socket, sqlite3, subprocess, sys, tempfile, threading, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, pandas as pd, pytest, sqlalchemy as sa
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from hmix_nb.elicit.spec import TEMPLATES, AnswerError, Spec, State
from hmix_nb.elicit.store import Refused, Store

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
SECRET = 'a secret that tests share'
def make(template='coefficient', **kw):
    return Spec.new(template, (PIXELS, np.arange(9) % 3), classes=('cat', 'dog', 'frog'), **(dict(n_pairs=2, per_batch=6, repeats=[1], comprehension=[], debrief=[]) | kw))

def postgres_programs():
    found = {k: shutil.which(k) or next((str(p) for p in Path('/usr/lib/postgresql').glob(f'*/bin/{k}')), None) for k in ('initdb', 'postgres')}
    if None in found.values(): pytest.skip(f"no {', '.join(k for k, v in found.items() if v is None)}: PostgreSQL is not installed")
    pytest.importorskip('psycopg', reason='psycopg is not installed')
    return found

@pytest.fixture(scope='session')
def postgres():
    "The address of a temporary cluster, run by a user without rights."
    run, root = postgres_programs(), Path(tempfile.mkdtemp(prefix='hmix-pg-'))
    as_user = {}
    if os.getuid() == 0: # PostgreSQL does not run as root
        try: as_user = dict(user=pwd.getpwnam('nobody').pw_uid, group=pwd.getpwnam('nobody').pw_gid, extra_groups=[])
        except KeyError: pytest.skip('PostgreSQL does not run as root, and there is no user nobody')
        os.chown(root, as_user['user'], as_user['group'])
    env, data = dict(os.environ, HOME=str(root), LC_ALL='C'), str(root/'data')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    made = subprocess.run([run['initdb'], '-D', data, '-A', 'trust', '-U', 'hmix', '-E', 'UTF8', '--no-sync'], capture_output=True, text=True, env=env, cwd=root, **as_user)
    if made.returncode: pytest.skip(f'PostgreSQL makes no cluster here: {made.stderr.strip().splitlines()[-1]}')
    log = open(root/'log', 'wb')
    server = subprocess.Popen([run['postgres'], '-D', data, '-p', str(port), '-h', '127.0.0.1', '-k', str(root), '-c', 'fsync=off'], stdout=log, stderr=log, env=env, cwd=root, **as_user)
    url = f'postgresql+psycopg://hmix@127.0.0.1:{port}/postgres'
    engine = sa.create_engine(url)
    try:
        for _ in range(100):
            try:
                with engine.connect(): break
            except sa.exc.OperationalError: time.sleep(.1)
        else: pytest.skip(f"PostgreSQL does not answer: {(root/'log').read_text().strip()[-200:]}")
        yield url
    finally:
        engine.dispose()
        server.send_signal(signal.SIGQUIT)
        server.wait(20)
        log.close()
        shutil.rmtree(root, ignore_errors=True)

def new_database(url):
    name = f's{os.getpid()}_{time.monotonic_ns()}'
    engine = sa.create_engine(url, isolation_level='AUTOCOMMIT')
    with engine.connect() as con: con.exec_driver_sql(f'CREATE SCHEMA {name}')
    engine.dispose()
    return f'{url}?options=-csearch_path%3D{name}' # a schema is made in a moment, a database in a second

@pytest.fixture(params=['sqlite', 'memory', 'postgresql'])
def url(request, tmp_path):
    if request.param == 'sqlite': return str(tmp_path/'study.db')
    return ':memory:' if request.param == 'memory' else new_database(request.getfixturevalue('postgres'))

class Clock:
    now = 1_700_000_000.
    def __call__(self): return self.now

@pytest.fixture
def open_store(url):
    opened = []
    def _(spec=None, **kw):
        opened.append(Store(url, make() if spec is None else spec, **(dict(secret=SECRET, clock=Clock()) | kw)))
        return opened[-1]
    yield _
    for s in opened: s.close()

YES, MOVED = {'boxes': [True]*3}, dict(mix=True, confidence=True)
def begin(store, who=None):
    who = who or store.enrol()
    state = store.advance(who, 'consent', YES)
    if state.step == 'instructions': store.advance(who, 'instructions')
    return who

def send(store, who, trial=None, key=None, mix=30, **kw):
    trial = trial or store.state(who).trial
    answer = dict(mix=mix, confidence=80)
    return store.submit(who, trial.id, answer, **(dict(key=key or f'key-{trial.id}', rt_ms=900, moved=MOVED) | kw))

def finish(store, who):
    while store.state(who).step == 'trials': send(store, who)
    return store.state(who)

def refused(reason, f, *args, **kw):
    with pytest.raises(Refused) as e: f(*args, **kw)
    assert e.value.reason == reason

# --- one participant
def test_a_whole_session(open_store):
    spec = make(comprehension=[dict(question='Which?', options=['this', 'that'], answer=1)], debrief=[dict(id='free', question='Well?', kind='text')])
    store = open_store(spec)
    who = store.enrol()
    assert store.state(who) == State(who, store.state(who).participant, 'consent', 0, 7, version=spec.version)
    with pytest.raises(AnswerError): store.advance(who, 'consent', {'boxes': [True, True]})
    assert store.advance(who, 'consent', YES).batch in (0, 1, 2)
    assert store.advance(who, 'instructions').step == 'comprehension'
    assert store.advance(who, 'comprehension', {'answers': [0]}) == State(who, store.state(who).participant, 'instructions', 0, 7, note='wrong', wrong=(0,), n_failed=1,
                                                                         batch=store.state(who).batch, version=spec.version)
    assert store.state(who).note == 'wrong'
    store.advance(who, 'instructions')
    assert store.advance(who, 'comprehension', {'answers': [1]}).step == 'trials'
    order = spec.order(who, store.state(who).batch, 0)
    for n, t in enumerate(order):
        at = store.state(who)
        assert (at.trial, at.n_done, at.n_trials) == (t, n, 7)
        at = send(store, who, mix=10*n, client_time=1.7e12, start=.5)
    assert at.step == 'debrief' and at.trial is None
    assert store.advance(who, 'debrief', {'free': 'ä\x00\ud800 "quoted"'}).step == 'done'
    df = store.answers()
    assert df.position.tolist() == list(range(7)) and df['repeat'].tolist() == [False]*6+[True] and np.allclose(df.lam_h, 1-np.arange(7)/10)
    assert (df.start == .5).all() and (df.start_confidence == .5).all() and df.moved[0] == MOVED and df.shown[0] == (df.lam_f[0],)
    assert str(df.client_time[0]) == '2023-11-14 22:13:20+00:00' == str(df.server_time[0]) and df.rt_s[0] == .9 and (df.version == spec.version).all()
    assert df.participant[0] == at.participant and who not in df.to_csv() and (df.stimulus == [t.stimulus for t in order]).all()
    assert store.debriefs().free.tolist() == ['ä   "quoted"']
    assert store.events().step.tolist() == ['consent', 'instructions', 'comprehension', 'instructions', 'comprehension', 'debrief']
    p = store.participants().iloc[0]
    assert (p.status, p.n_failed, p.n_done, p.n_trials, p.n_expired) == ('finished', 1, 7, 7, 0)

@pytest.mark.parametrize('template', TEMPLATES)
def test_every_task_is_stored_in_natural_units(template, open_store):
    store = open_store(make(template, n_pairs=2, repeats=0))
    who = begin(store)
    pages = dict(construct={'lam': '0.3'}, coefficient=dict(mix='25', confidence='60'), categorical=dict(first='cat', first_prob='70', second='dog', second_prob='30', impossible=['frog']))
    while (at := store.state(who)).step == 'trials':
        store.submit(who, at.trial.id, pages.get(store.spec.task, {'choice': '1'}), key=f'k-{at.trial.id}', rt_ms='12.5', moved=MOVED)
    df = store.answers()
    if store.spec.task == 'categorical':
        assert df[['first', 'first_prob', 'second', 'second_prob', 'impossible']].iloc[0].tolist() == ['cat', .7, 'dog', .3, ('frog',)] and df.lam_h.isna().all()
        assert df.pair.isna().all() == (template == 'categorical-images')
    elif store.spec.task in ('select-shuffled', 'pairwise'): assert df.lam_h.tolist() == [o[1] for o in df.shown]
    else: assert set(df.lam_h) == {.3 if template == 'construct' else .75}
    if template == 'pairwise': assert (df.lam_h == np.where(df.choice == 'first', df.lam_f, df.lam_f2)).all()
    assert store.payment().total.tolist() == [0]
    assert df.id_a.dtype == 'int64' and df.lam_f.dtype == float and df['repeat'].dtype == bool

def test_sent_twice_counts_once(open_store):
    store = open_store()
    who = begin(store)
    first = store.state(who).trial
    assert send(store, who, first).n_done == send(store, who, first).n_done == send(store, who, first, mix=99).n_done == 1
    second = store.state(who).trial
    refused('replayed', send, store, who, second, key=f'key-{first.id}')
    refused('late', send, store, who, first, key='another-key')
    assert store.answers().lam_h.tolist() == [.7]
    consent = store.enrol()
    for _ in range(2): assert store.advance(consent, 'consent', YES, key='the-same-key').step == 'instructions'
    refused('replayed', store.advance, consent, 'instructions', key='the-same-key')
    assert len(store.events()) == 3

def test_what_is_refused_changes_nothing(open_store):
    store = open_store(make(debrief=[dict(id='free', question='Well?', kind='text')]))
    ann, ben = begin(store), begin(store)
    order = store.spec.order(ann, store.state(ann).batch, 0)
    send(store, ann)
    before = store.answers(), store.participants()
    refused('early', send, store, ann, order[3])
    refused('late', send, store, ann, order[0], key='fresh-key')
    refused('foreign', send, store, ann, store.state(ben).trial)
    refused('foreign', store.submit, ann, 'no-such-trial', {}, key='fresh-key', rt_ms=1)
    refused('unknown', store.state, 'x'*22)
    for bad in (None, 3, '', 'x'*21, "' or 1=1 --aaaaaaaaaaa", ann[:-1] + '\n', ann + 'x'): refused('unknown', store.state, bad)
    for kw in (dict(key='short'), dict(key='x'*65), dict(key='no spaces here'), dict(key=None), dict(rt_ms=None), dict(rt_ms=-1), dict(rt_ms=float('nan')), dict(rt_ms='x'),
               dict(rt_ms=True), dict(client_time='now'), dict(client_time=1e99), dict(start=2)):
        refused('malformed', store.submit, ann, order[1].id, dict(mix=1, confidence=1), **(dict(key='good-key', rt_ms=1, moved=MOVED) | kw))
    for kw in (dict(mix=101), dict(start=.4), dict(moved={'mix': True}), dict(moved={'mix': 'yes'}), dict(moved=[1])):
        with pytest.raises(AnswerError): send(store, ann, order[1], **kw)
    refused('late', store.advance, ann, 'consent', YES)
    refused('early', store.advance, ann, 'debrief', {})
    refused('malformed', store.advance, ann, 'trials', {})
    pd.testing.assert_frame_equal(store.answers(), before[0])
    pd.testing.assert_frame_equal(store.participants(), before[1])
    finish(store, ann)
    refused('late', send, store, ann, order[6], key='fresh-key')
    assert store.answers().participant.value_counts().tolist() == [7]

def test_before_consent_nothing_can_be_answered(open_store):
    store = open_store()
    who = store.enrol()
    refused('early', store.submit, who, 'x', {}, key='good-key', rt_ms=1)
    store.advance(who, 'consent', YES)
    refused('early', store.submit, who, store.spec.order(who, store.state(who).batch, 0)[0].id, dict(mix=1, confidence=1), key='good-key', rt_ms=1, moved=MOVED)
    assert len(store.answers()) == 0

def test_the_last_answer_may_be_revised_where_the_study_says_so(open_store):
    store = open_store(make(revise=True, debrief=[dict(id='free', question='Well?', kind='text')]))
    who = begin(store)
    one = store.state(who).trial
    send(store, who, one, mix=10)
    assert store.state(who).previous == one
    assert send(store, who, one, key='second-thoughts', mix=20).n_done == 1
    send(store, who, one, key='third-thoughts', mix=30)
    assert store.answers().lam_h.tolist() == [.7] and store.answers(current=False).revision.tolist() == [0, 1, 2]
    send(store, who)
    refused('late', send, store, who, one, key='fourth-thoughts')
    finish(store, who)
    last = store.spec.order(who, store.state(who).batch, 0)[-1]
    assert store.state(who).step == 'debrief' and send(store, who, last, key='last-thoughts', mix=99).step == 'debrief'
    store.advance(who, 'debrief', {})
    refused('late', send, store, who, last, key='too-late-thoughts')

def test_rows_are_only_added(open_store):
    store = open_store()
    send(store, begin(store))
    emptied = () if store._sqlite else ('TRUNCATE answers', 'TRUNCATE events CASCADE', 'TRUNCATE events, answers')
    for sql in ('UPDATE answers SET lam_h = 0', 'DELETE FROM answers', 'UPDATE events SET data = 0', 'DELETE FROM events', *emptied):
        with pytest.raises(sa.exc.DBAPIError, match='only added'), store._write() as con: con.exec_driver_sql(sql)
    assert store.answers().lam_h.tolist() == [.7]

# --- places
def test_least_filled_first_and_never_too_many(open_store):
    store = open_store(make(wanted=2))
    people = [begin(store) for _ in range(7)]
    assert Counter(store.state(p).batch for p in people) == {0: 2, 1: 2, 2: 2, None: 1} and store.state(people[-1]).step == 'full'
    assert Counter(store.state(p).batch for p in people[:3]) == {0: 1, 1: 1, 2: 1}
    refused('late', store.advance, people[-1], 'consent', YES)
    assert store.occupancy().live.tolist() == [2, 2, 2] and sorted(store.participants().status) == ['full']+['started']*6

def test_drop_outs_are_refilled_and_may_come_back(open_store):
    store = open_store(make(wanted=1, lease_minutes=10))
    clock = store.clock
    a, b, c = [begin(store) for _ in range(3)]
    d = begin(store)
    names = [store.state(o).participant for o in (c, d)]
    assert store.state(d).step == 'full'
    send(store, a) # a has answered once, b not at all
    clock.now += 300
    send(store, c)
    clock.now += 301
    status = store.participants().set_index('participant').status
    assert status[names].tolist() == ['started', 'full'] and sorted(status) == ['dropped', 'dropped', 'full', 'started']
    e, f = store.enrol(), store.enrol()
    assert store.state(d).step == 'full' and store.resume(d).step == 'instructions' and begin(store, e) and store.state(e).batch is not None # the places of a and b
    assert store.state(b).note == 'away' and store.resume(b).step == 'full' and begin(store, f) and store.state(f).step == 'full' # nothing answered, nothing free
    store.advance(d, 'instructions')
    assert store.state(a).step == 'trials' and finish(store, a).step == 'done' # has answered, may finish in any case
    for who in (c, d, e):
        if store.state(who).step == 'trials': finish(store, who)
    o = store.occupancy()
    assert (o.finished <= o.wanted + o.expired).all()

def test_looking_changes_nothing(open_store):
    store = open_store(make(wanted=1, lease_minutes=10))
    (a, *_), d = [begin(store) for _ in range(3)], begin(store)
    assert store.resume(a) == store.state(a) and store.resume(d).step == 'full' # nothing is due, nothing is free
    store.clock.now += 601
    before = store.participants()
    for _ in range(3): assert (store.state(a).step, store.state(a).note, store.state(d).step) == ('trials', 'away', 'full')
    pd.testing.assert_frame_equal(store.participants(), before)
    assert store.resume(d).step == 'instructions' and store.resume(a).note == '' and store.participants().n_expired.sum() == 1
    refused('unknown', store.resume, 'x'*22)

def test_a_late_step_goes_on_where_there_is_a_place(open_store):
    store = open_store(make(wanted=1, lease_minutes=10, per_batch=99))
    a, b = store.enrol(), store.enrol()
    store.advance(a, 'consent', YES)
    store.clock.now += 601
    store.advance(b, 'consent', YES) # takes the place
    assert store.advance(a, 'instructions').step == 'full' and store.events().step.tolist() == ['consent', 'consent']
    store.clock.now += 601
    assert store.resume(a).step == 'instructions' and store.advance(a, 'instructions').step == 'trials'
    assert sorted(store.participants().n_expired) == [0, 1]

def test_who_only_pressed_start_has_not_started_and_drops_out_of_nothing(open_store):
    store = open_store(make(wanted=1, lease_minutes=10, per_batch=99))
    came, a, b = store.enrol(), begin(store), begin(store)
    for status, live in ((['came', 'started', 'full'], 1), (['came', 'dropped', 'full'], 0)):
        df = store.participants().set_index('participant').loc[[store.state(o).participant for o in (came, a, b)]]
        assert df.status.tolist() == status and df.live.sum() == live and df.started.notna().tolist() == [False, True, False]
        store.clock.now += 601
    store.resume(b)
    store.advance(b, 'instructions')
    assert finish(store, b).step == 'done'
    df = store.participants().set_index('participant').loc[store.state(b).participant]
    assert df.status == 'finished' and df.started.timestamp() == store.clock.now # since there was a place

def test_a_lease_is_renewed_by_every_answer(open_store):
    store = open_store(make(wanted=1, lease_minutes=10))
    who = begin(store)
    for _ in range(7):
        store.clock.now += 599
        send(store, who)
    assert store.participants().n_expired.tolist() == [0] and store.state(who).step == 'done'

def test_starts_stay_balanced_when_people_drop_out(open_store):
    store = open_store(make('construct', n_pairs=2, start=[.1, .9], wanted=4, lease_minutes=10, per_batch=99))
    gone, *_ = people = [begin(store) for _ in range(2)]
    store.clock.now += 5*60
    store.submit(people[1], (t := store.state(people[1]).trial).id, {'lam': .5}, key='good-key', rt_ms=1)
    store.clock.now += 6*60
    more = [begin(store) for _ in range(3)]
    assert sorted(store.state(p).trial.start for p in [people[1], *more]) == [.1, .1, .9, .9]

# --- platforms, secrets, versions
def test_platform_ids_are_hashed_and_locked_up(open_store, url):
    store = open_store()
    token = store.enrol('5f3a9c0000000000deadbeef', {'STUDY_ID': 'abc', 'SESSION_ID': 'ß'})
    assert store.enrol('5f3a9c0000000000deadbeef') == token != store.enrol('5f3a9c0000000000deadbeff')
    with store._read() as con: dump = json.dumps([list(map(str, r)) for t in ('participants', 'events', 'answers', 'meta', 'studies') for r in con.exec_driver_sql(f'SELECT * FROM {t}')])
    for text in ('5f3a9c', 'deadbee', 'SESSION_ID', SECRET): assert text not in dump
    ids = store.platform_ids(SECRET)
    assert ids.platform.tolist() == ['5f3a9c0000000000deadbeef', '5f3a9c0000000000deadbeff'] and ids.SESSION_ID[0] == 'ß' and set(ids.participant) == set(store.participants().participant)
    for bad in ('no', b'x'*40, None, 3): refused('secret', store.platform_ids, bad)
    for bad in ('', 'x'*201, 'a\x00', 3): refused('malformed', store.enrol, bad)
    refused('malformed', store.enrol, 'ok', {'a': 'x'*201})
    refused('malformed', store.enrol, 'ok', {f'{k}': '' for k in range(11)})
    if url != ':memory:':
        with pytest.raises(ValueError, match='another one'): open_store(secret='yet another secret')

def test_a_link_goes_to_the_browser_that_began(open_store):
    store = open_store()
    ann = store.enrol('ann', {'STUDY_ID': 's', 'platform': 'eve', 'participant': 'p', 'browser': 'y'}, browser='her browser')
    assert store.enrol('ann', browser='her browser') == ann == store.enrol('ann') == store.link('ann') == store.link(' ann ') # without one: the owner asks
    assert store.advance(ann, 'consent', {'boxes': [True]*3}).step == 'instructions'
    for other in ('another', ''): refused('began', store.enrol, 'ann', browser=other)
    assert store.enrol('ann', browser='her browser') == ann
    ben = store.enrol('ben')
    refused('began', store.enrol, 'ben', browser='her browser') # nobody knows whose it was
    assert store.link('ben') == ben and store.link('eve') is None and len(store.participants()) == 2
    ids = store.platform_ids(SECRET).set_index('platform')
    assert ids.participant['ann'] == store.state(ann).participant and 'browser' not in ids and ids.STUDY_ID['ann'] == 's'

def test_an_id_is_nobodys_until_somebody_consents(open_store):
    store = open_store(make(wanted=1, lease_minutes=1))
    phone, laptop = (store.enrol('ann', {'STUDY_ID': k}, browser=k) for k in ('phone', 'laptop'))
    refused('unknown', store.state, phone)
    assert store.link('ann') == laptop and store.state(laptop).step == 'consent' and len(store.participants()) == 1
    assert store.platform_ids(SECRET).STUDY_ID.tolist() == ['laptop']
    with pytest.raises(AnswerError): store.advance(laptop, 'consent', {'boxes': [True, False, True]})
    phone = store.enrol('ann', browser='phone') # nor does who ticks two of the boxes
    store.advance(phone, 'consent', {'boxes': [True]*3})
    for _ in range(2):
        refused('began', store.enrol, 'ann', browser='laptop')
        store.clock.now += 3600 # also once the lease has run out
    for _ in store.spec.batches: begin(store)
    full = store.enrol('ben', browser='phone')
    assert store.advance(full, 'consent', {'boxes': [True]*3}).step == 'full'
    refused('began', store.enrol, 'ben', browser='laptop') # consented, and waits
    assert store.link('ann') == phone and store.state(phone).step == 'instructions'

def test_where_it_is_served_is_remembered(open_store):
    store = open_store()
    assert store.served_at() == ''
    for url in ('http://127.0.0.1:8000/', 'https://study.example.org/blends/'): assert store.served_at(url) == url == store.served_at()

def test_the_secret_is_a_private_file(tmp_path, monkeypatch):
    path = tmp_path/'a'/'x.db'
    with pytest.raises(OSError): Store(path, make())
    path.parent.mkdir()
    with Store(path, make()) as s: token, secret = s.enrol('me'), s.secret
    assert [p.stat().st_mode & 0o777 for p in (path, path.with_name('x.db.secret'))] == [0o600]*2
    with Store(path, make()) as s: assert s.enrol('me') == token and s.secret == secret
    path.with_name('x.db.secret').rename(tmp_path/'kept')
    with pytest.raises(ValueError, match='is missing'): Store(path, make())
    with Store(path, make(), secret=(tmp_path/'kept').read_bytes()) as s: assert s.enrol('me') == token
    monkeypatch.delenv('HMIX_SECRET', raising=False)
    with pytest.raises(ValueError, match='HMIX_SECRET'): Store('postgresql://x@127.0.0.1:1/x', make())
    with pytest.raises(OSError, match='cannot be opened'): Store('postgresql://me:hidden@127.0.0.1:1/x', make(), secret=SECRET)
    (tmp_path/'text.db').write_text('no database, only a long text '*99)
    with pytest.raises(OSError, match='cannot be opened'): Store(tmp_path/'text.db', make(), secret=SECRET)

def test_a_changed_study_is_refused_or_kept_apart(url, open_store):
    if url == ':memory:': pytest.skip('nothing is left of a database in memory')
    old = open_store()
    who = begin(old)
    with open_store(make(wanted=5)) as s: assert s.state(who).step == 'trials' # what people see is the same
    with open_store(make(size=64)): pass # nobody has answered yet
    send(old, who)
    with pytest.raises(ValueError, match="1 answers of version .*changed='apart'"): open_store(make(size=64))
    new = open_store(make(size=64), changed='apart')
    refused('version', new.state, who)
    refused('version', send, new, who, old.state(who).trial)
    assert finish(new, begin(new)).step == 'done' and finish(old, who).step == 'done'
    df = new.answers()
    assert df.groupby('version').size().to_dict() == {old.spec.version: 7, new.spec.version: 7} and df.class_a.notna().all()
    assert new.occupancy().finished.sum() == 1 and len(new.payment()) == 1

def test_last_words_are_those_of_one_version(url, open_store):
    if url == ':memory:': pytest.skip('nothing is left of a database in memory')
    asked = lambda *ids: [dict(id=o, question='Well?', kind='text') for o in ids]
    stores = old, new = [open_store(make(debrief=asked(*o)), changed='apart') for o in (('same', 'before'), ('same', 'after'))]
    for s, said in zip(stores, (dict(same='a', before='b'), dict(same='c'))):
        finish(s, who := begin(s))
        s.advance(who, 'debrief', said)
    assert old.debriefs().drop(columns='participant').values.tolist() == [[old.spec.version, 'a', 'b']]
    assert new.debriefs().drop(columns='participant').values.tolist() == [[new.spec.version, 'c', None]]

def test_a_study_whose_version_was_named_otherwise_is_told(url, open_store):
    if url == ':memory:': pytest.skip('nothing is left of a database in memory')
    before = make()
    before.__dict__['_version'] = '0123456789ab' # as an earlier package would have named it
    with open_store(before) as store: send(store, begin(store))
    with pytest.raises(ValueError, match='1 answers of version 0123456789ab. The study is the same, but an earlier hmix_nb .*--changed apart'): open_store(make())
    with pytest.raises(ValueError, match='Put the study back as it was'): open_store(make(size=64))
    with open_store(make(), changed='apart') as store: assert store.answers().version.tolist() == ['0123456789ab']

def test_reopened_it_goes_on(url, open_store):
    if url == ':memory:': pytest.skip('nothing is left of a database in memory')
    store = open_store()
    who = begin(store)
    send(store, who)
    store.close()
    again = open_store()
    assert again.state(who).n_done == 1 and finish(again, who).step == 'done'

# --- many at once
def test_threads(open_store):
    store = open_store(make(wanted=3))
    def live(i):
        who = begin(store, store.enrol(f'person {i % 12}')) if i < 12 else store.enrol(f'person {i % 12}')
        return who, (finish(store, who).step if i < 12 else None)
    with ThreadPoolExecutor(16) as pool: out = list(pool.map(live, range(24)))
    assert len({w for w, _ in out}) == 12
    assert Counter(s for _, s in out[:12]) == {'done': 9, 'full': 3} and store.occupancy().finished.tolist() == [3, 3, 3]
    df = store.answers()
    assert len(df) == 63 and not df.duplicated(['participant', 'trial']).any() and (df.groupby('stimulus').participant.nunique() == 3).all()

def test_the_same_answer_from_eight_threads(open_store):
    store = open_store()
    who = begin(store)
    trial = store.state(who).trial
    def one(i):
        try: return send(store, who, trial, key='one-and-the-same' if i % 2 else f'key-of-thread-{i}').n_done
        except Refused as e: return e.reason
    with ThreadPoolExecutor(8) as pool: out = Counter(pool.map(one, range(16)))
    assert len(store.answers()) == 1 and set(out) <= {1, 'late'} and store.state(who).n_done == 1

def _live(url, spec, n, ready, go, out): # in a process of its own
    store = Store(url, spec, secret=SECRET)
    ready.put(1)
    go.wait()
    seconds, kept = [], []
    for _ in range(n):
        who = begin(store)
        while (at := store.state(who)).step == 'trials':
            t = time.perf_counter()
            send(store, who)
            seconds.append(time.perf_counter() - t)
            kept.append((who, at.trial.id))
    out.put((seconds, kept))
    store.close()

@pytest.mark.parametrize('url', ['sqlite', 'postgresql'], indirect=True)
def test_processes(url):
    spec, ctx = make(wanted=4), multiprocessing.get_context('spawn')
    ready, go, out = ctx.Queue(), ctx.Event(), ctx.Queue()
    procs = [ctx.Process(target=_live, args=(url, spec, 7, ready, go, out)) for _ in range(2)]
    for p in procs: p.start()
    for _ in procs: ready.get(timeout=60)
    go.set()
    kept = [o for _ in procs for o in out.get(timeout=60)[1]]
    for p in procs: p.join(20)
    with Store(url, spec, secret=SECRET) as store:
        df, o = store.answers(), store.occupancy()
        assert o.finished.tolist() == [4, 4, 4] and o.live.tolist() == [0, 0, 0]
        assert len(kept) == len(set(kept)) == len(df) == 12*7 and (df.groupby('stimulus').participant.nunique() == 4).all()

KILLED = '''
import sys, pickle
from hmix_nb.elicit.store import Store
from tests.test_store import SECRET, begin, send
url, path = sys.argv[1:]
store = Store(url, pickle.load(open(path, 'rb')), secret=SECRET)
while True:
    who = begin(store)
    while (at := store.state(who)).step == 'trials':
        send(store, who)
        print(who, at.trial.id, flush=True)
    if at.step == 'full': break
'''

@pytest.mark.parametrize('url', ['sqlite', 'postgresql'], indirect=True)
def test_killed_at_any_time_no_acknowledged_answer_is_lost(url, tmp_path):
    import pickle
    spec, said = make(wanted=60), []
    (tmp_path/'spec.pkl').write_bytes(pickle.dumps(spec))
    root = Path(__file__).resolve().parent.parent
    for n in range(2):
        p = subprocess.Popen([sys.executable, '-c', KILLED, url, str(tmp_path/'spec.pkl')], stdout=subprocess.PIPE, text=True, cwd=root)
        lines = [p.stdout.readline() for _ in range(10 + 17*n)]
        p.kill()
        said += lines + p.stdout.read().splitlines(keepends=True)
        p.wait()
    told = [tuple(l.split()) for l in said if l.endswith('\n')]
    with Store(url, spec, secret=SECRET) as store:
        with store._read() as con: there = [tuple(r) for r in con.exec_driver_sql('SELECT token, trial FROM answers')]
        assert len(there) == len(set(there)) and set(told) <= set(there) and len(there) - len(told) <= 3 # stored, and killed before it was said
        assert store.participants().n_done.sum() == len(there)

# --- any order of calls
class Life(RuleBasedStateMachine):
    "People come, answer, repeat themselves, vanish and return, in any order."
    @initialize()
    def start(self):
        self.store = Store(':memory:', make(wanted=1, lease_minutes=10, per_batch=3, repeats=[0]), clock=Clock())
        self.people, self.sent = [], {}

    def some(self, i): return self.people[i % len(self.people)] if self.people else None

    @rule()
    def enrol(self): self.people.append(self.store.enrol())

    @rule(i=st.integers(0, 9), step=st.sampled_from(['consent', 'instructions', 'debrief', 'comprehension']))
    def advance(self, i, step):
        if who := self.some(i):
            try: self.store.advance(who, step, YES)
            except (Refused, AnswerError): pass

    @rule(i=st.integers(0, 9), ahead=st.integers(-2, 2), mix=st.integers(-1, 101))
    def submit(self, i, ahead, mix):
        who = self.some(i)
        at = self.store.state(who) if who else None
        if at and at.batch is not None:
            order = self.store.spec.order(who, at.batch, 0)
            trial = order[(at.n_done + ahead) % len(order)]
            try: after = send(self.store, who, trial, key=f'key-{ahead}-{trial.id}', mix=mix)
            except (Refused, AnswerError): return
            assert after.n_done == self.store.state(who).n_done
            self.sent.setdefault((at.participant, trial.id), round(1-mix/100, 6))

    @rule(minutes=st.sampled_from([1, 6, 11]))
    def wait(self, minutes): self.store.clock.now += 60*minutes

    @rule(i=st.integers(0, 9))
    def look(self, i):
        if who := self.some(i): assert self.store.state(who) == self.store.state(who)

    @invariant()
    def nothing_is_lost_or_too_much(self):
        if not hasattr(self, 'store'): return
        with self.store._read() as con: # the tables that people read would take most of the time
            rows = con.exec_driver_sql('SELECT p.participant, a.trial, a.lam_h FROM answers a JOIN participants p ON p.token = a.token').all()
            places = con.exec_driver_sql('SELECT batch, count(completed), sum(n_expired), sum(n_done) FROM participants GROUP BY batch').all()
        assert {(a, b): c for a, b, c in rows} == self.sent and len(rows) == len(self.sent) == sum(o[3] or 0 for o in places)
        assert all(done <= 1 + expired for batch, done, expired, _ in places if batch is not None)

    def teardown(self):
        if hasattr(self, 'store'):
            o = self.store.occupancy()
            assert (o.finished <= o.wanted + o.expired).all() and len(self.store.answers()) == len(self.sent)
            self.store.close()

def test_any_order_of_calls():
    run_state_machine_as_test(Life, settings=settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)))
