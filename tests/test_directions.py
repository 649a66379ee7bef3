"Arrows: the sets they are drawn in, sessions and their logs under all orders of events, losses, and the callback in real `Learner`s."
import json, re, subprocess, sys, threading, warnings
from copy import deepcopy
from operator import attrgetter
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD
from fastai.torch_core import set_seed
from hypothesis import given, settings, strategies as st
from torch import nn
from hmix_nb.directions.loss import KINDS, DirectionCB, DirectionLoss, Directions, margin, slope, total
from hmix_nb.directions.trainer import field, violated
from hmix_nb.directions.events import UNDO
from hmix_nb.directions.sets import arrows_frame, read_arrows
from hmix_nb.directions.space import EVENTS, SETS, Arrow, Log, Oracle, Session, conflicts, make_set, open_session, replay, resume, truth
from hmix_nb.train.callbacks import HumanMixUp, MixMaxEntCB
from hmix_nb.train.losses import SoftCrossEntropy

# ---- sets

@pytest.mark.parametrize('name', SETS)
def test_a_biased_pool_lacks_a_region_that_the_splits_have(name):
    o, t = make_set(name, 400, biased=True), truth(name)
    near = lambda x: (np.linalg.norm(x[:, None]-o.x[None], axis=-1).min(1) > .5).mean() # how much lies far from the pool
    assert near(o.test.x) > .04 > near(o.more(400).x)
    assert near(make_set(name, 400, seed=1).x) > .04
    assert np.bincount(o.y).tolist() == [200, 200]

@pytest.mark.parametrize('name', SETS)
def test_no_split_shares_a_point(name):
    for biased in (False, True):
        o = make_set(name, 60, seed=2, biased=biased, n_test=500)
        rows = [set(map(tuple, s)) for s in (o.x, o.practice.x, o.test.x, o.more(60).x, o.more(60, 1).x, o.more(60, full=not biased).x)]
        assert len(set.union(*rows[:5])) == sum(map(len, rows[:5]))

def test_an_oracle_answers_for_a_chosen_class():
    o = make_set('blobs', 60, n_classes=3)
    oracle = Oracle('blobs', n_classes=3)
    target = (o.y+1) % 3
    a = oracle.draw(o.x, o.y, target)
    assert (a.target == target).all() and a.ok.mean() > .8
    there = truth('blobs', 3)((o.x + (a.r+.06)[:, None]*a.d)[a.ok])
    assert (there == target[a.ok]).mean() > .9
    assert not a.d[~a.ok].any() and not a.r[~a.ok].any()

# ---- sessions

def started(log=None, **kw):
    s = Session('ann', log=log, session='s', clock=lambda: 0.)
    s.do('load', **dict(dataset='moons', n=8, labelled=6) | kw)
    return s

numbers = st.integers(0, 9)
coordinate = st.floats(-1, 1, allow_nan=False).map(lambda v: round(v, 3))
vectors = st.tuples(coordinate, coordinate)
possible = st.one_of(
    st.fixed_dictionaries(dict(event=st.just('arrow_start'), point=numbers)),
    st.fixed_dictionaries(dict(event=st.just('arrow_move'), vector=vectors)),
    st.fixed_dictionaries(dict(event=st.just('arrow_commit'), vector=vectors), optional=dict(point=numbers, omega=coordinate, ms=numbers)),
    st.fixed_dictionaries(dict(event=st.just('arrow_commit'), d=vectors), optional=dict(point=numbers, r=coordinate, target=numbers)),
    st.fixed_dictionaries(dict(event=st.just('arrow_edit'), id=numbers), optional=dict(vector=vectors, omega=coordinate, target=numbers)),
    st.fixed_dictionaries(dict(event=st.just('label'), point=numbers, y=st.integers(0, 2)), optional=dict(ms=numbers)),
    st.fixed_dictionaries(dict(event=st.sampled_from(['arrow_delete', 'arrow_confidence', 'arrow_target']), id=numbers)),
    st.fixed_dictionaries(dict(event=st.sampled_from(['skip', 'clear_point', 'select']), point=numbers)),
    st.fixed_dictionaries(dict(event=st.just('trained'), epoch=numbers, model=st.text('ab', max_size=3)), optional=dict(loss=st.just(float('nan')))),
    st.fixed_dictionaries(dict(event=st.just('run'), name=st.just('a')), optional=dict(curve=st.just([[1, float('nan')]]), alpha=coordinate)),
    st.fixed_dictionaries(dict(event=st.sampled_from(['undo', 'redo', 'clear_all', 'arrow_cancel', 'train', 'step', 'pause', 'reset', 'commit',
                                                      'save', 'export']))),
    st.fixed_dictionaries(dict(event=st.just('set')), optional=dict(loss=st.sampled_from([*KINDS, 'x']), alpha=coordinate, gamma=coordinate)))

@settings(max_examples=80, deadline=None)
@given(events=st.lists(possible, max_size=25))
def test_any_session_is_its_replay_and_refusals_change_nothing(events):
    s = started()
    for e in events:
        before, n = s.state, len(s.events)
        try: s.do(e)
        except ValueError as err:
            assert ': ' in str(err)
            assert s.state is before and len(s.events) == n
    lines = json.loads(json.dumps(s.events, allow_nan=False))
    assert replay(lines) == s
    assert replay(lines).public() == s.public() | dict(preview=None)
    assert len({a.id for a in s.arrows}) == len(s.arrows)
    assert all(a.y != a.target and abs(np.hypot(*a.d)-1) < 1e-6 for a in s.arrows)
    assert len(s.tidy()) == len(s.events)

def test_undoing_everything_gives_the_beginning_back():
    s = started()
    first = s.public()
    for i in range(3): s.do('arrow_commit', point=i, vector=(.5, .1*i))
    s.do('label', point=7, y=1)
    s.do('clear_all')
    last = s.arrows, s.labels.tolist(), s.given
    while s.can_undo: s.do('undo')
    assert {k: s.public()[k] for k in ('labels', 'arrows', 'given', 'skipped')} == {k: first[k] for k in ('labels', 'arrows', 'given', 'skipped')}
    while s.can_redo: s.do('redo')
    assert (s.arrows, s.labels.tolist(), s.given) == last

def test_ids_are_never_used_again():
    s = started()
    s.do('arrow_commit', point=0, vector=(.5, 0))
    s.do('undo')
    s.do('arrow_commit', point=1, vector=(.5, 0))
    assert [a.id for a in s.arrows] == [1]

def test_a_log_cut_anywhere_gives_what_was_committed(tmp_path):
    s = started(log=tmp_path/'a.jsonl')
    s.do('arrow_start', point=2)
    s.do('arrow_commit', vector=(.4, .4))
    s.do('arrow_start', point=3) # and the power goes in mid-drag
    data = (tmp_path/'a.jsonl').read_bytes()
    ends = [i+1 for i, c in enumerate(data) if c == 10]
    for cut in [*range(ends[1], len(data), 7), len(data)-1]:
        (tmp_path/'b.jsonl').write_bytes(data[:cut])
        back = resume(tmp_path/'b.jsonl')
        whole = sum(e-1 <= cut for e in ends)
        assert len(back.events) == whole
        assert len(back.arrows) == (whole >= 4)
        back.do('select', point=1)
        assert replay(tmp_path/'b.jsonl') == back

def test_events_are_on_the_disk_before_do_returns(tmp_path):
    s = started(log=tmp_path/'a.jsonl')
    for i in range(4):
        s.do('arrow_commit', point=i, vector=(.5, 0))
        assert replay(tmp_path/'a.jsonl') == s

def test_nothing_happens_if_the_log_cannot_be_written(tmp_path, monkeypatch):
    s = started(log=tmp_path/'a.jsonl')
    def full(fd): raise OSError('No space left on device')
    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError): s.do('arrow_commit', point=0, vector=(.5, 0))
    assert s.arrows == () and s.events[-1]['event'] == 'load'
    monkeypatch.undo()
    s.do('arrow_commit', point=1, vector=(.5, 0)) # there is room again
    assert replay(tmp_path/'a.jsonl') == s and [a.point for a in s.arrows] == [1]

def test_half_a_line_on_a_full_disk_is_none(tmp_path):
    pytest.importorskip('resource', reason='no limits of file sizes on this system')
    code = '''
import resource, signal, sys
from hmix_nb.directions.space import open_session, replay
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
s = open_session(sys.argv[1], 'ann', dataset='moons', n=8)
before, (soft, hard) = s.log.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
for more in (0, 40, 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + more, hard))
    try: s.do('arrow_commit', point=0, vector=(.5, 0))
    except OSError as e: print(e.strerror)
    assert s.arrows == () and s.log.path.read_bytes() == before, more
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
s.do('arrow_commit', point=1, vector=(.5, 0)) # there is room again
assert replay(sys.argv[1]) == s and [a.point for a in s.arrows] == [1]'''
    p = subprocess.run([sys.executable, '-c', code, str(tmp_path/'a.jsonl')], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0 and p.stdout == 'File too large\n'*3, p.stderr

def test_a_second_writer_is_refused_and_the_log_stays_whole(tmp_path):
    first = started(log=tmp_path/'a.jsonl')
    second = resume(tmp_path/'a.jsonl')
    second.do('arrow_commit', point=0, vector=(.5, 0))
    before = first.state
    with pytest.raises(ValueError, match='log: a.jsonl has .* another session or desk writes to it'): first.do('arrow_commit', point=1, vector=(.5, 0))
    assert first.state is before and replay(tmp_path/'a.jsonl') == second
    second.do('undo')
    (tmp_path/'a.jsonl').unlink() # nor does it go on in a file that has no beginning
    with pytest.raises(ValueError, match='log: a.jsonl has 0 bytes'): second.do('redo')

def test_the_lines_of_two_writers_are_no_session():
    a, b = started(), started()
    for s in (a, b): s.do('arrow_commit', point=0, vector=(.5, 0))
    with pytest.raises(ValueError, match=r"log: event 4 \('arrow_commit'\): id: 0 was given before; have two sessions"): replay(a.events + b.events[2:])

@pytest.mark.parametrize('cut', [0, 5, -3, -1])
def test_a_session_goes_on_whatever_its_log_was_cut_to(tmp_path, cut):
    path = tmp_path/'a.jsonl'
    s = open_session(path, 'ann', dataset='moons', n=8)
    data = path.read_bytes()
    line = data.index(b'\n') + 1
    for end in (cut % line, line + cut % (len(data)-line)): # within the first line, within the second
        path.write_bytes(data[:end])
        again = open_session(path, 'ann', dataset='moons', n=8)
        assert np.array_equal(again.points.x, s.points.x) and again.annotator == 'ann' and replay(path) == again

def test_a_log_goes_on_only_for_its_annotator_and_its_points(tmp_path):
    path = tmp_path/'a.jsonl'
    s = open_session(path, 'ann', dict(n=8, biased=True), dataset='moons')
    data = path.read_bytes()
    for args, said in ((dict(annotator='bob'), "annotator: found 'bob', and .* has 'ann'"), (dict(dataset='xor'), "dataset: found 'xor', and .* has 'moons'"),
                       (dict(n=9), 'n: found 9, and .* has 8'), (dict(seed=1), 'seed: found 1, and .* has 0'), (dict(biased=False), 'biased: found False')):
        with pytest.raises(ValueError, match=said): open_session(path, **args)
        assert path.read_bytes() == data
    for args in (dict(), dict(annotator='ann', dataset='moons', n=8, seed=0, biased=True), dict(defaults=dict(dataset='xor', n=30))):
        assert open_session(path, **args) == s

def test_threads_may_all_write(tmp_path):
    s = started(log=tmp_path/'a.jsonl')
    def work(k):
        for i in range(10): s.do('arrow_commit', point=k, vector=(.5, .01*i)) if k else s.do('trained', epoch=i, model='m')
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(s.arrows) == 30 and replay(tmp_path/'a.jsonl') == s

def test_a_public_session_tells_nothing_that_is_held_out():
    s = started(biased=True, labelled=3)
    o = make_set('moons', 8, biased=True)
    text = json.dumps(s.public())
    assert s.public()['labels'][3:] == [-1]*5
    assert not any(repr(float(v)) in text for split in (o.test, o.practice) for v in split.x[:200].flat)
    s.do('commit')
    s.do('scored', accuracy=.5)
    assert s.public()['held_out']['accuracy'] == .5
    assert np.array_equal(s.held_out_split().x, o.test.x)
    for e in ('undo', 'clear_all', 'arrow_cancel'):
        with pytest.raises(ValueError, match='after commit'): s.do(e)

def test_each_event_refuses_what_it_does_not_know():
    s = started()
    for name, (must, may) in EVENTS.items():
        with pytest.raises(ValueError, match=f"^{name}: 'nonsense' is unknown"): s.do(name, nonsense=1)
        for k in must.split():
            with pytest.raises(ValueError, match=f'^{name}: .* is not given'): s.do(name, **{o: 0 for o in must.split() if o != k})

def test_a_spoiled_log_names_its_event():
    s = started()
    s.do('arrow_commit', point=0, vector=(.5, 0))
    for spoil, word in ((dict(target=s.arrows[0].y), 'target'), (dict(d=[1, 1]), 'd: found'), (dict(event='arrow'), 'event')):
        with pytest.raises(ValueError, match=rf'log: event 3 .*{word}'): replay(s.events[:2] + [s.events[2] | spoil])
    with pytest.raises(ValueError, match="allowed is 'session'"): replay(s.events[1:])

NONSENSE = ['x', '5', '', True, None, [], [1], {}, dict(a=1), -1, 1.5, 1e30, 10**400, float('nan'), float('inf'), [[1], [1, 2]], [1, [2]], 'x'*99999,
            json.loads('['*60 + ']'*60)]
PYTHON = re.compile(r"object|supported|could not|invalid literal|unexpected|iterable|subscript|unhashable|argument of type|convert|recursion|'NoneType'")

@pytest.mark.parametrize('event', [k for k in EVENTS if k != 'session'])
def test_nonsense_is_refused_in_our_words_and_leaves_nothing(event):
    good = dict(dataset='moons', n=8, point=0, y=1, id=0, vector=[.5, .1], target=None, omega=.5, what='map', runs=[0], name='a', epoch=1, model='m', accuracy=.5)
    must, may = map(str.split, EVENTS[event])
    for k in [*must, *may, 't_ms']:
        s = started()
        s.do('arrow_commit', point=0, vector=(.5, 0))
        s.do('run', name='a', curve=[[1, .5]])
        if event == 'scored': s.do('commit')
        for bad in NONSENSE:
            args = {o: good[o] for o in must if o in good} | {k: bad}
            if event == 'arrow_commit': args = dict(point=0) | args
            if event in ('arrow_commit', 'arrow_edit') and k != 'vector': args = dict(d=[1, 0]) | args
            before, n = s.state, len(s.events)
            try: s.do(event, **args)
            except ValueError as e:
                assert ': ' in str(e) and not PYTHON.search(str(e)) and len(str(e)) < 700, (k, bad, str(e)[:200])
                assert s.state is before and len(s.events) == n
        json.dumps(s.public(), allow_nan=False)
        assert replay(json.loads(json.dumps(s.events, allow_nan=False))) == s and len(s.tidy()) == len(s.events) and len(s.cost()) == 3
        for a in s.arrows: assert isinstance(a.omega, float) and isinstance(a.ms, float) and (a.r is None or 0 < a.r < 1e30)

@pytest.mark.parametrize('event, args', [('clear_point', dict(point='abc')), *(('arrow_commit', dict(point=0, vector=[1e-4, 0]) | o) for o in (
    dict(target='zzz'), dict(target=9), dict(r='x'), dict(d=['q']))), ('arrow_edit', dict(id=0, vector=[1e-4, 0], r='abc'))])
def test_what_comes_to_nothing_is_looked_at_too(event, args):
    s = started()
    s.do('arrow_commit', point=0, vector=(.5, 0))
    if event == 'clear_point': s.do('clear_all')
    n = len(s.events)
    with pytest.raises(ValueError, match='found'): s.do(event, **args)
    assert len(s.events) == n and len(s.tidy()) == n

def test_a_log_of_another_hand_has_a_table():
    s = started()
    s.do('arrow_commit', point=0, vector=(.5, 0))
    odd = [dict(event='arrow_cancel', t_ms=0, point='abc', target=1.5, r=[1], d='x', y={}), dict(event='save', t_ms=0, arrow_id='7', d=[[1], 'q', 3])]
    t = replay(s.events + odd).tidy()
    assert t.tail(2)[['point', 'y', 'target', 'r', 'd_0', 'd_1']].isna().all().all() and t.arrow_id.tolist()[-1] == 7
    assert t.head(3).equals(s.tidy()) and t.dtypes.equals(s.tidy().dtypes)

def test_a_length_below_nought_does_not_turn_an_arrow_round():
    s = started()
    with pytest.raises(ValueError, match='r: found -0.5'): s.do('arrow_commit', point=0, d=(1, 0), r=-.5)
    with pytest.raises(ValueError, match='vector: found .*, below 1e.06 in size'): s.do('arrow_commit', point=0, vector=(1e308, 1e308))
    assert not s.arrows

def test_a_label_that_puts_arrows_out_of_effect_says_so(tmp_path):
    s = started(log=tmp_path/'a.jsonl')
    y = int(s.labels[2])
    s.do('arrow_commit', point=2, vector=(.5, 0))
    assert s.do('label', point=3, y=y) == s.do('label', point=2, y=y) == ''
    said = s.do('label', point=2, y=1-y) # what the arrow aims at
    assert 'aims at the class that the point has now: it is kept, and has no effect' in said
    assert (len(s.arrows), s.active, s.conflicts().kind.tolist()) == (1, (), ['label'])
    with pytest.raises(ValueError, match=f'target: found {1-y}, the label of the point'): s.do('arrow_edit', id=0, target=1-y)
    assert 'no effect' in s.do('arrow_edit', id=0, vector=(.4, .4))
    again = replay(tmp_path/'a.jsonl')
    assert again == s and '1 arrow (1 without effect' in repr(again) and again.conflicts().kind.tolist() == ['label']
    assert s.do('label', point=2, y=y) == '' and len(s.active) == 1
    three = started(dataset='blobs', n_classes=3)
    y = int(three.labels[0])
    for k in (1, 2): three.do('arrow_commit', point=0, vector=(.5, .1*k), target=(y+k) % 3)
    assert '2 arrows of this point were drawn for another label, 1 of them towards this one' in three.do('label', point=0, y=(y+1) % 3)

def test_a_thousand_arrows_on_a_point_are_no_trouble():
    s = started()
    for i in range(1000):
        s.do('arrow_commit', point=0, vector=(.5*(-1)**i, .01))
    assert len(s.conflicts()) == 500*500 and len(s.state.past) == UNDO
    assert replay(s.events) == s

@pytest.mark.parametrize('text, words', [
    ('{"event": "session", "session": "s"}\n' + '['*100_000 + '\n', 'line 2 is no event'), ('\x00\xff\n', 'line 1 is no event'),
    ('{"event": []}\n', 'first'), ('{"event": "session"}\n', 'session is not given'), ('{"event": "session", "session": 1}\n{"event": {}}\n', 'event 2'),
    ('{"event": "session", "session": 1, "t_ms": "late"}\n', "t_ms: found 'late'")])
def test_a_log_of_another_hand_is_refused_by_line(tmp_path, text, words):
    (tmp_path/'a.jsonl').write_text(text)
    with pytest.raises(ValueError, match=words): replay(tmp_path/'a.jsonl')

@pytest.mark.parametrize('spoil, words', [
    (dict(point=99), 'point: found 99'), (dict(y=7), 'y: found 7'), (dict(target=7), 'target: found 7'), (dict(r=-1), 'r: found -1'), (dict(r=1e300), 'r: found 1e'),
    (dict(d='x'), "d: found 'x'"), (dict(d=[1, 0, 0]), 'd: found'), (dict(omega='1'), "omega: found '1'"), (dict(ms=-1), 'ms: found -1'), (dict(id=-1), 'id'),
    (dict(d=None), r'd: found \[nan\]')])
def test_an_arrow_in_a_log_is_looked_at_like_any_other(spoil, words):
    s = started()
    s.do('arrow_commit', point=0, vector=(.5, 0))
    with pytest.raises(ValueError, match=f"log: event 3 .*{words}"): replay(s.events[:2] + [s.events[2] | spoil])
    with pytest.raises(ValueError, match='log: event 3 .*: not given'): replay(s.events[:2] + [{k: v for k, v in s.events[2].items() if k != 'omega'}])

@pytest.mark.parametrize('log', [5, None, 'abc', [1], [dict(event='session', session='s'), 'x']])
def test_what_is_no_log_is_named(log):
    with pytest.raises((ValueError, FileNotFoundError), match='log: found|No such file'): replay(log)

def test_opposite_arrows_are_kept_and_reported():
    s = started()
    s.do('arrow_commit', point=0, vector=(.5, 0))
    s.do('arrow_commit', point=0, vector=(-.5, 0))
    assert len(s.active) == 2 and s.conflicts().degrees.tolist() == [180]
    assert len(conflicts(s.arrows)) == 1
    loss = lambda arrows: Directions.of(arrows, s.points.x).loss(net(), DirectionLoss('hinge', gamma=1.))
    both, each = loss(s.arrows), [loss([a]) for a in s.arrows]
    assert torch.isclose(both, sum(each)/2) and both > 0 # averaged one by one: they do not cancel

# ---- losses

def net(seed=0, n=2, k=2, act=nn.Tanh):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(n, 16), act(), nn.Linear(16, k))

def some(b=40, n=2, k=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x, d = torch.randn(2, b, n, generator=g, dtype=torch.float64).to(dtype)
    y = torch.randint(k, (b,), generator=g)
    return Directions(x, y, (y + torch.randint(1, k, (b,), generator=g)) % k, d, torch.rand(b, generator=g)+.1, torch.rand(b, generator=g))

@pytest.mark.parametrize('kind', KINDS)
def test_weight_gradients_against_finite_differences(kind):
    a, f, h = some(), net(k=3).double(), 1e-6
    loss = DirectionLoss(kind, gamma=1., kappa=2.)
    grads = torch.autograd.grad(a.loss(f, loss), list(f.parameters()), allow_unused=True)
    w = f[1].weight
    for i, j in ((0, 0), (3, 1), (9, 0)):
        with torch.no_grad(): w[i, j] += h
        up = a.loss(f, loss).item()
        with torch.no_grad(): w[i, j] -= 2*h
        down = a.loss(f, loss).item()
        with torch.no_grad(): w[i, j] += h
        assert grads[0][i, j].item() == pytest.approx((up-down)/(2*h), abs=1e-6)

@pytest.mark.parametrize('kind', KINDS)
def test_laws_of_the_mean(kind):
    a, f, loss = some(), net(k=3).double(), DirectionLoss(kind, gamma=1.)
    once = a.loss(f, loss)
    assert torch.isclose(a[torch.arange(40).repeat(3)].loss(f, loss), once) # duplicated
    assert torch.isclose(a[torch.randperm(40)].loss(f, loss), once)
    each = loss.each(f, a.x, a.y, a.t, a.d, a.r)
    assert torch.isclose(once, (a.omega*each).sum()/a.omega.sum()) # by weight, over arrows
    tips = dict(d=a.d) if kind == 'tip' else dict(d=-a.d)
    assert torch.allclose(loss.each(f, a.x, a.t, a.y, r=a.r, **tips), each) # swapped
    assert (each >= 0).all() and (kind != 'tip' or (each >= np.log(2)-1e-9).all())

def test_an_unknown_target_is_all_the_others():
    a, f = some(), net(k=3).double()
    z = f(a.x)
    p = z.softmax(1).gather(1, a.y[:, None])[:, 0]
    assert torch.allclose(margin(z, a.y), (p/(1-p)).log())
    assert torch.allclose(slope(f, a.x, a.y, None, a.d), slope(f, a.x, a.y, torch.full_like(a.y, -1), a.d))
    two = net(k=2).double()
    assert torch.allclose(margin(two(a.x), a.y.clamp_max(1)), margin(two(a.x), a.y.clamp_max(1), 1-a.y.clamp_max(1)))
    one = nn.Sequential(two, nn.Linear(2, 1)).double()
    assert torch.allclose(margin(one(a.x), torch.ones(40, dtype=torch.long)), one(a.x)[:, 0])

@pytest.mark.parametrize('kind', KINDS)
def test_what_coincides_is_masked_and_finite(kind):
    x = torch.randn(20, 5)
    x2 = torch.where(torch.arange(20)[:, None] % 4 == 0, x, x + torch.randn(20, 5))
    y = torch.arange(20) % 2
    a, f = Directions.between(x, x2, y, 1-y), net(n=5)
    assert (a.masked, len(a), a.n_given) == (5, 15, 20)
    loss = a.loss(f, DirectionLoss(kind))
    grads = torch.autograd.grad(loss, [p for p in f.parameters()], allow_unused=True)
    assert loss.isfinite() and all(g.isfinite().all() for g in grads if g is not None)
    nothing = Directions.between(x, x, y, 1-y)
    assert (len(nothing), nothing.masked, nothing.loss(f)) == (0, 20, None)
    raw = DirectionLoss(kind)(f, x, y, 1-y, 0*x, torch.ones(20)) # not through `Directions`
    assert raw == 0 and all(g.isfinite().all() for g in torch.autograd.grad(raw, list(f.parameters()), allow_unused=True) if g is not None)

def test_relu_nets_still_learn_from_slopes():
    a, f = some(k=2), net(act=nn.ReLU).double()
    opt, loss = torch.optim.Adam(f.parameters(), .02), DirectionLoss('softplus', gamma=1.)
    first = a.loss(f, loss).item()
    for _ in range(60):
        opt.zero_grad()
        a.loss(f, loss).backward()
        opt.step()
    assert a.loss(f, loss).item() < .9*first

def test_a_demanded_reach():
    a, f = some(), net(k=3).double()
    m = margin(f(a.x), a.y, a.t).clamp_min(0).mean()
    by_hand = F.relu(m/a.r + slope(f, a.x, a.y, a.t, a.d))
    assert torch.allclose(DirectionLoss('hinge', gamma='reach').each(f, a.x, a.y, a.t, a.d, a.r), by_hand)

def test_violated_arrows_are_those_that_do_not_fall():
    a, f = some(), net(k=3).double()
    assert torch.equal(violated(f, a), slope(f, a.x, a.y, a.t, a.d) >= 0)
    assert violated(f, a, gamma=9.).sum() > violated(f, a).sum()

# ---- the callback

gen = torch.Generator().manual_seed(0)
X, Y = torch.rand(40, 3, 8, 8, generator=gen), torch.randint(0, 3, (40,), generator=gen)
ARROWS = Directions(X, Y, (Y+1) % 3, torch.randn(X.shape, generator=gen), torch.rand(40, generator=gen)+.1, torch.rand(40, generator=gen))

class Items(list):
    def new_empty(self): return Items() # what `export` asks for

def cnn(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.AvgPool2d(4), nn.Dropout(.3), nn.Flatten(),
                         nn.Linear(16, 3))

def learner(cbs=None, model=None, x=X, y=Y, bs=8, loss=None, **kw):
    set_seed(0) # a loader draws its order's seed when it is made
    dls = DataLoaders.from_dsets(Items(zip(x[:32], y[:32])), Items(zip(x[32:], y[32:])), bs=bs, device='cpu', num_workers=0)
    dls.vocab = ('cat', 'dog', 'ship')
    learn = Learner(dls, model or cnn(), loss or CrossEntropyLossFlat(), **dict(opt_func=SGD, lr=.01, cbs=cbs) | kw)
    return learn.remove_cb(ProgressCallback)

def fit(learn, epochs=1, seed=0):
    set_seed(seed)
    with warnings.catch_warnings(), learn.no_logging():
        warnings.simplefilter('ignore')
        learn.fit(epochs)
    return learn

class Peek(Callback):
    "What each step would do, and the losses it is made of."
    order, run_valid = 8, False
    def before_fit(self): self.grads, self.losses, self.steps = [], [], 0
    def after_pred(self): self.batch = self.xb[0].clone(), self.yb[0].clone()
    def after_loss(self): self.losses.append(self.learn.loss.item())
    def before_step(self):
        self.grads.append([p.grad.clone() for p in self.model.parameters()])
        self.steps += 1

def slowly(model, x, y, arrows, kind, alpha): # gradients of one step, an arrow at a time
    loss, state, lost = DirectionLoss(kind), {k: v.clone() for k, v in model.state_dict().items()}, 0
    ce = F.cross_entropy(model(x), y) # the batch first, as in a Learner: it moves the statistics of batch norm
    model.eval()
    for i in range(len(arrows)):
        lost = lost + arrows.omega[i]*loss.each(model, *(v[i:i+1] for v in (arrows.x, arrows.y, arrows.t, arrows.d, arrows.r)))[0]
    model.train()
    out = torch.autograd.grad((1-alpha)*ce + alpha*lost/arrows.omega.sum(), list(model.parameters()), allow_unused=True)
    model.load_state_dict(state)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), out)]

@pytest.mark.parametrize('kind', KINDS)
def test_gradients_are_those_of_a_slow_reference(kind):
    model = nn.Sequential(*[m for m in cnn() if not isinstance(m, nn.Dropout)])
    peek = Peek()
    learn = learner([DirectionCB(ARROWS, .4, kind, n=40), peek], model, bs=32)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    fit(learn)
    model.load_state_dict(start)
    for a, b in zip(peek.grads[0], slowly(model.train(), *peek.batch, ARROWS, kind, .4)): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

def test_without_arrows_nothing_changes():
    a, b = fit(learner(DirectionCB(ARROWS[:0])), 2), fit(learner(), 2)
    for p, q in zip(a.model.state_dict().values(), b.model.state_dict().values()): assert torch.equal(p, q)

def test_alpha_zero_changes_nothing_but_float_noise_and_alpha_one_leaves_the_labels_out():
    a, b = fit(learner(DirectionCB(ARROWS, 0.))), fit(learner())
    for p, q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q)
    one, other = fit(learner(DirectionCB(ARROWS, 1.))), fit(learner(DirectionCB(ARROWS, 1.), y=(Y+1) % 3))
    for p, q in zip(one.model.parameters(), other.model.parameters()): torch.testing.assert_close(p, q)

def test_batch_norm_dropout_and_frozen_layers_stay_as_they_were():
    model, seen = cnn(), []
    model[1].requires_grad_(False)
    model[4].register_forward_hook(lambda m, i, o: seen.append(m.training))
    class Frozen(Callback):
        order = 3
        def before_batch(self): self.model[1].eval()
        def before_step(self): seen.append((self.model[1].training, self.model[4].training))
    fit(learner([DirectionCB(ARROWS), Frozen()], model, bs=32))
    assert seen[:2] == [True, False] and next(o for o in seen if isinstance(o, tuple)) == (False, True)
    assert model[1].num_batches_tracked == 0

def test_a_failing_pass_gives_the_modes_back():
    class Breaks(nn.Module):
        def forward(self, x):
            if not self.training: raise ArithmeticError('no')
            return x
    model = nn.Sequential(cnn(), Breaks())
    with pytest.raises(ArithmeticError): fit(learner(DirectionCB(ARROWS), model))
    assert all(m.training for m in model.modules())

def test_each_arrow_has_its_turn():
    cb = DirectionCB(ARROWS, n=8)
    cb._held, cb._gen, cb._queue = ARROWS, torch.Generator().manual_seed(0), []
    drawn = torch.cat([cb._drawn(8).x for _ in range(5)]).flatten(1).sum(1).sort().values
    torch.testing.assert_close(drawn, ARROWS.x.flatten(1).sum(1).sort().values)
    assert len(DirectionCB(ARROWS)._drawn.__func__(cb, 256)) == 8 # n, whatever the batch
    cb.n = None
    assert [len(cb._drawn(b)) for b in (8, 100, 128, 400)] == [16, 25, 32, 40]

class Bf16(Callback):
    order, run_valid = 10, False
    def before_batch(self):
        self.cast = torch.autocast('cpu', torch.bfloat16)
        self.cast.__enter__()
    def after_pred(self): self.learn.pred = self.pred.float()
    def after_loss(self): self.cast.__exit__(None, None, None)

@pytest.mark.parametrize('kind', KINDS)
def test_inside_autocast_the_arrows_stay_in_float32(kind):
    dtypes, model = [], cnn()
    model[0].register_forward_hook(lambda m, i, o: dtypes.append((m.training, o.dtype)))
    cb = DirectionCB(ARROWS, loss=kind)
    fit(learner([cb, Bf16()], model, bs=32))
    assert dtypes[:2] == [(True, torch.bfloat16), (False, torch.float32)]
    assert all(v.isfinite() and v.dtype == torch.float32 for v in cb.losses)
    with torch.autocast('cpu', torch.bfloat16): fit(learner(cb, cnn())) # the whole of fit inside
    assert len(cb.losses) == 4 and all(v.isfinite() for v in cb.losses)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('kind', KINDS)
def test_mixed_precision_on_a_gpu(kind):
    dtypes, model, cb = [], cnn().cuda(), DirectionCB(ARROWS, loss=kind)
    model[0].register_forward_hook(lambda m, i, o: dtypes.append((m.training, o.dtype)))
    learn = learner([cb, MixedPrecision()], model)
    learn.dls.cuda()
    fit(learn, 3)
    assert dtypes[:2] == [(True, torch.float16), (False, torch.float32)]
    assert all(v.isfinite() for v in cb.losses) and all(p.isfinite().all() for p in model.parameters())

@pytest.mark.parametrize('partner', [
    lambda: GradientAccumulation(16), lambda: GradientClip(.1), lambda: MixedPrecision(), lambda: HumanMixUp(), lambda: MixMaxEntCB()],
    ids=['accumulation', 'clip', 'mixed precision', 'mixing', 'max ent'])
def test_it_works_beside(partner):
    cb = DirectionCB(ARROWS, n=8)
    with_ = fit(learner([cb, partner()], loss=SoftCrossEntropy()), 2)
    without = fit(learner(partner(), loss=SoftCrossEntropy()), 2)
    assert len(cb.losses) == 8 and all(v.isfinite() for v in cb.losses)
    assert all(p.isfinite().all() for p in with_.model.parameters())
    assert not torch.allclose(with_.model[0].weight, without.model[0].weight)

def test_accumulated_gradients_are_the_sum_over_batches():
    whole, parts = Peek(), Peek()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    fit(learner([DirectionCB(ARROWS, n=40), whole], nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), bs=32, lr=0.))
    copy = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    copy.load_state_dict(whole.model.state_dict())
    fit(learner([DirectionCB(ARROWS, n=40), GradientAccumulation(32), parts], copy, bs=8, lr=0.))
    for a, b in zip(whole.grads[0], parts.grads[-1]): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

def test_the_logged_loss_is_the_mixed_one():
    cb, peek = DirectionCB(ARROWS, .25, n=40), Peek()
    learn = fit(learner([cb, peek], lr=0., bs=32))
    plain = Peek()
    fit(learner(plain, cnn(), lr=0., bs=32))
    assert peek.losses[0] == pytest.approx(.75*plain.losses[0] + .25*cb.losses[0].item(), rel=1e-5)

def test_lr_find_export_and_load(tmp_path):
    cb = DirectionCB(ARROWS)
    learn = fit(learner(cb, path=tmp_path))
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=8, show_plot=False)
    learn.export('a.pkl')
    assert len(cb.directions) == 40 # the learner itself keeps them
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        back = load_learner(tmp_path/'a.pkl')
    kept = next(c for c in back.cbs if isinstance(c, DirectionCB))
    assert len(kept.directions) == 0 and kept.alpha == cb.alpha # no inputs of annotators in the file
    assert (tmp_path/'a.pkl').read_bytes().find(ARROWS.d[:1].numpy().tobytes()[:64]) < 0
    with torch.no_grad(): assert torch.allclose(back.model.eval()(X), learn.model.eval()(X))

@pytest.mark.parametrize('change, said', [
    (lambda t: t.assign(arrow_id=1.7), 'arrow_id in row 0: found 1.7'), (lambda t: t.assign(arrow_id=np.nan), 'arrow_id in row 0: found nan'),
    (lambda t: t.assign(d_x=0.), 'found columns d_0, d_1, d_x; allowed are d_0, d_1, d_2'),
    (lambda t: t.rename(columns=dict(d_1='d_7')), 'found columns d_0, d_7; allowed are d_0, d_1')])
def test_a_table_that_is_none_of_arrows_is_refused(change, said):
    table = arrows_frame([Arrow.drawn(0, 3, 0, 1, (1., 2.))])
    assert len(read_arrows(table)) == 1
    with pytest.raises(ValueError, match=said): read_arrows(change(table))

def test_arrows_of_two_dimensions_and_of_three_do_not_oppose_each_other():
    both = [Arrow.drawn(0, 3, 0, 1, (1., 2.)), Arrow.drawn(1, 3, 0, 1, (1., 2., 3.))]
    with pytest.raises(ValueError, match=r'arrows: found \[2, 3\] dimensions at point 3'): conflicts(both)

def test_arrows_without_a_length_are_counted():
    r = torch.full((40,), torch.nan)
    r[:3] = .5
    with pytest.warns(UserWarning, match='directions: 37 of 40 have no length'): DirectionCB(Directions(X, Y, None, ARROWS.d, r), loss='tip')
    with pytest.raises(ValueError, match="f: found 'head'"): DirectionCB(ARROWS, f='head')
    with pytest.raises(ValueError, match=r'x: found torch.float32 of shape \(2,\)'): Directions(torch.randn(2), torch.zeros(2).long(), None, torch.randn(2))
    with pytest.raises(ValueError, match=r'x2: found \(3, 2\), beside x of \(2, 2\)'):
        Directions.between(torch.ones(2, 2), torch.ones(3, 2), torch.zeros(2).long(), None)

def test_what_is_looked_at_is_the_net_as_it_predicts():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 8), nn.Dropout(.5), nn.Tanh(), nn.Linear(8, 2)).train()
    x, before = torch.randn(30, 2), {k: v.clone() for k, v in net.state_dict().items()}
    a = Directions(x, torch.zeros(30).long(), None, torch.randn(30, 2))
    assert torch.equal(violated(net, a), violated(net, a)) and torch.equal(field(net, x), field(net, x)) and net[2].training
    for k, v in net.state_dict().items(): assert torch.equal(v, before[k])

def test_pairs_of_tokens_are_refused():
    with pytest.raises(ValueError, match='x2: found .* torch.int64; allowed are floats'):
        Directions.between(torch.ones(2, 3).long(), torch.zeros(2, 3).long(), torch.zeros(2).long(), None)

def test_a_loaded_learner_says_that_it_has_no_arrows(tmp_path):
    learn = fit(learner(DirectionCB(ARROWS), path=tmp_path))
    learn.export('a.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        back = load_learner(tmp_path/'a.pkl')
    back.dls = learn.dls
    with pytest.warns(UserWarning, match='its arrows were left out when it was exported'), back.no_logging(): back.fit(1)
    assert all(c.losses == [] for c in back.cbs if isinstance(c, DirectionCB))

def test_a_copied_learner_learns_from_the_same_arrows():
    learn = learner([DirectionCB(ARROWS, n=8), Peek()])
    other = deepcopy(learn)
    fit(learn)
    fit(other)
    cb, kept = (next(c for c in o.cbs if isinstance(c, DirectionCB)) for o in (learn, other))
    assert kept is not cb and kept.learn is other and kept.directions is cb.directions and len(kept.losses) == len(cb.losses) == 4
    assert [float(v) for v in kept.losses] == [float(v) for v in cb.losses]
    for p, q in zip(learn.model.parameters(), other.model.parameters()): assert torch.equal(p, q)
    alone = deepcopy(cb) # after training, with its order of draws, and no second learner
    assert len(alone.losses) == 4 and len(alone.directions) == 40 and alone.learn is learn
    none = learner(DirectionCB(ARROWS[:0]))
    assert not next(c for c in none.cbs if isinstance(c, DirectionCB)).__getstate__()['exported'] # it had none

@pytest.mark.filterwarnings('ignore:directions')
@pytest.mark.parametrize('loss', ['tip', DirectionLoss('softplus', gamma='reach')])
def test_arrows_whose_length_is_not_known_take_nothing_from_the_labels(loss):
    r = torch.full((40,), torch.nan)
    r[3] = .5
    some = Directions(X, Y, (Y+1) % 3, ARROWS.d, r)
    a, b = (fit(learner(DirectionCB(o, loss=loss, n=2)), 2) for o in (some, some[[3]]))
    assert all(v > 0 for c in a.cbs if isinstance(c, DirectionCB) for v in c.losses) # each step has the one that counts
    for p, q in zip(a.model.parameters(), b.model.parameters()): assert torch.equal(p, q)

class Words(nn.Module):
    "A net of tokens: no slope there, but behind its embedding."
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(50, 6), nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
    def forward(self, tokens): return self.head(self.embedding(tokens))

def test_a_net_of_tokens_learns_from_arrows_between_embeddings():
    gen = torch.Generator().manual_seed(0)
    x, d = torch.randint(50, (32, 4), generator=gen), torch.randn(12, 4, 6, generator=gen)
    arrows = Directions(torch.randn(12, 4, 6, generator=gen), Y[:12], (Y[:12]+1) % 3, d)
    with pytest.raises(ValueError, match=r'found inputs of shape \(4, 6\); allowed is that of the batches, \(4,\)'):
        fit(learner(DirectionCB(arrows), Words(), x, Y[:32]))
    net = Words()
    start = (arrows.loss(net.head)).item()
    cb = DirectionCB(arrows, .9, f=attrgetter('head'))
    fit(learner(cb, net, x, Y[:32], lr=.1), 40)
    assert arrows.loss(net.head).item() < .75*start and cb.losses[0].item() == pytest.approx(start, rel=1e-4)

def test_embeddings_and_float64():
    x, y = torch.randn(40, 6).double(), Y % 2
    cb = DirectionCB(Directions.between(x[::2], x[1::2], torch.zeros(20).long(), torch.ones(20).long()), loss='tip')
    fit(learner(cb, net(n=6).double(), x, y))
    assert cb.losses[0].dtype == torch.float64 and cb.losses[0].isfinite()

@pytest.mark.parametrize('problem, message', [
    (lambda: learner(DirectionCB(some(dtype=torch.float32))), r'directions: found inputs of shape \(2,\); allowed is that of the batches, \(3, 8, 8\)'),
    (lambda: learner(DirectionCB(ARROWS), cnn().half(), X.half()), 'model: found torch.float16 weights'),
    (lambda: learner(DirectionCB(ARROWS), nn.DataParallel(cnn())), 'model: found DataParallel'),
    (lambda: learner(DirectionCB(ARROWS), loss=CrossEntropyLossFlat(reduction='none')), r'loss: found shape \(8,\)'),
    (lambda: learner(DirectionCB(Directions(X, Y, torch.full((40,), 7), ARROWS.d))), 'directions: found class 7; the model has 3 classes'),
    (lambda: learner(DirectionCB(Directions(X, Y+3, None, ARROWS.d))), 'directions: found class 5; the model has 3 classes'),
    (lambda: learner(DirectionCB(ARROWS), Pair(), loss=lambda p, y: p[0].sum()), r'model: it gave tuple for one arrow; allowed are logits \(1, C\)'),
    (lambda: learner(DirectionCB(ARROWS), Dense(), loss=lambda p, y: p.sum()), r'model: it gave torch.Size\(\[1, 3, 8, 8\]\) for one arrow'),
    (lambda: learner(DirectionCB(ARROWS), Deaf()), 'f: its logits do not depend on x')])
def test_what_it_cannot_do_is_said(problem, message):
    with pytest.raises(ValueError, match=message): fit(problem())

class Pair(nn.Linear):
    def __init__(self): super().__init__(192, 3)
    def forward(self, x): return (super().forward(x.flatten(1)),)*2

class Dense(nn.Conv2d):
    def __init__(self): super().__init__(3, 3, 1)

class Deaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
    def forward(self, x):
        if not self.training: return torch.zeros(len(x), 3)
        return self.bias.expand(len(x), 3)

@pytest.mark.parametrize('kind', KINDS)
def test_a_transformer_learns_from_arrows(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0., batch_first=True), nn.Flatten(), nn.Linear(24, 3))
    x, d = torch.randn(5, 3, 8), F.normalize(torch.randn(5, 24), dim=-1).view(5, 3, 8)
    loss = DirectionLoss(kind)(net, x, torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0]), d, torch.ones(5))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None) and net[0].linear1.weight.grad.abs().sum() > 0

def test_a_layer_that_writes_into_its_input_does_not_reach_ours():
    x = torch.randn(6, 2)
    net, before = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 3)), x.clone()
    field(net, x)
    DirectionLoss('softplus')(net, x, torch.zeros(6).long(), torch.ones(6).long(), F.normalize(torch.randn(6, 2), dim=-1)).backward()
    assert torch.equal(x, before) and net[1].weight.grad.abs().sum() > 0
