"Simulated participants over HTTP: what they were told is in the store, whatever they and the server did."
import asyncio, importlib.util
from pathlib import Path
import numpy as np, pandas as pd, pytest
from sklearn.datasets import load_digits

pytest.importorskip('fasthtml')
from hmix_nb.data.simulated import SimulatedParticipants
from hmix_nb.elicit.answers import check_answer
from hmix_nb.elicit.bots import MANNERS, Bot, audit, make_bots, send_bots
from hmix_nb.elicit.minds import Mind, label_form
from hmix_nb.elicit.server import serve
from hmix_nb.elicit.spec import TEMPLATES, Spec
from hmix_nb.elicit.store import Store

ROOT = Path(__file__).resolve().parent.parent
IDS = np.flatnonzero(np.isin(load_digits().target, (3, 5, 8))).tolist()
CLEAN = dict(lost=0, twice=0, altered=0, over=0, odd=0)

def load_bench():
    spec = importlib.util.spec_from_file_location('bench_elicit', ROOT/'bench'/'elicit.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def study(template='coefficient', **more):
    return Spec.new(template, 'digits', ids=IDS, **dict(name='digits', n_pairs=4, per_batch=12, wanted=1, repeats=2) | more)

def answers_of(reports): return sorted((r.name, t.stimulus, t.repeat, sorted(map(str, f.items()))) for r in reports for t, f in r.answers.values())

@pytest.mark.parametrize('template', TEMPLATES)
def test_every_task_with_bad_manners(template):
    spec = study(template)
    with serve(spec, Store(':memory:', spec), quiet=True) as handle:
        reports = send_bots(make_bots(handle.url, spec, len(spec.batches) + 1, manners=dict.fromkeys(MANNERS, .3), seed=4))
        found, left = audit(reports, handle.store), handle.store.occupancy()
    assert sorted(r.end for r in reports) == ['done']*len(spec.batches) + ['full']
    assert found == CLEAN | dict(acknowledged=sum(spec.n_trials(b) for b in spec.batches)), [r.odd for r in reports]
    assert (left.finished == 1).all()

def test_same_seed_same_answers_in_the_same_batch():
    spec = study(n_pairs=3, per_batch=40)
    made = []
    for _ in range(2):
        with serve(spec, Store(':memory:', spec), quiet=True) as handle:
            made.append(answers_of(send_bots(make_bots(handle.url, spec, 1, seed=7, manners=('double', 'nonsense')))))
    assert len(spec.batches) == 1
    strip = lambda rows: sorted(o[1:2] + o[3:] for o in rows if not o[2]) # who repeats what, the token decides
    assert strip(made[0]) == strip(made[1])

def test_the_audit_sees_what_is_lost_doubled_altered_or_too_much():
    spec = study()
    store = Store(':memory:', spec)
    with serve(spec, store, quiet=True) as handle:
        reports = send_bots(make_bots(handle.url, spec, 1, seed=2))
        df, places, trial = store.answers(current=False), store.occupancy(), next(iter(reports[0].answers))
    class Fake:
        spec = store.spec
        def __init__(self, df): self.df = df
        def answers(self, current): return self.df
        def occupancy(self): return places
    assert audit(reports, Fake(df[df.trial != trial]))['lost'] == 1
    assert audit(reports, Fake(pd.concat([df, df[df.trial == trial]])))['twice'] == 1
    changed = df.assign(lam_h=df.lam_h.where(df.trial != trial, (df.lam_h + .5) % 1))
    assert audit(reports, Fake(changed))['altered'] == 1
    others = [df.assign(participant=f'p{i}', trial=df.trial + str(i)) for i in range(2)]
    assert audit(reports, Fake(pd.concat([df, *others])))['over'] > 0

def test_a_bot_waits_for_a_place_and_leaves_when_it_shall():
    spec = study(lease_minutes=.05) # three seconds
    with serve(spec, Store(':memory:', spec), quiet=True) as handle:
        gone = send_bots(make_bots(handle.url, spec, len(spec.batches), seed=1, stop=3))
        assert [(r.end, len(r.answers)) for r in gone] == [('stopped', 3)]*len(gone)
        late = send_bots(make_bots(handle.url, spec, len(spec.batches), seed=2, queue=30))
        assert {r.end for r in late} == {'done'}
        assert audit(gone + late, handle.store) | dict(acknowledged=0) == CLEAN | dict(acknowledged=0)
        assert handle.store.occupancy().expired.sum() >= len(gone)

def test_platform_ids_reach_the_store_and_no_table():
    spec = study()
    with serve(spec, Store(':memory:', spec), quiet=True) as handle:
        send_bots(make_bots(handle.url, spec, 1, seed=1, platform=dict(PROLIFIC_PID='5f3a0c9e', STUDY_ID='s1')))
        store = handle.store
        assert '5f3a0c9e' in store.platform_ids(store.secret).to_csv()
        assert '5f3a0c9e' not in store.answers().to_csv() + store.participants().to_csv()

def test_manners_are_checked():
    mind = Mind(study(), SimulatedParticipants(1))
    with pytest.raises(ValueError, match="manners: 'duble' is unknown.*'double'"): Bot('http://x', mind, ('duble',))
    with pytest.raises(ValueError, match='manners: double'): Bot('http://x', mind, dict(double=2))

def test_a_server_that_is_not_there_is_said():
    bot = Bot('http://127.0.0.1:9', Mind(study(), SimulatedParticipants(1)), patience=.2)
    with pytest.raises(TimeoutError, match='no reply for 0.2 s'): asyncio.run(bot.run())

def test_forms_from_any_label():
    g = np.random.default_rng(0)
    for k in (2, 3, 10):
        names = tuple('abcdefghij'[:k])
        for _ in range(300):
            row = g.dirichlet(np.full(k, g.choice([.05, .3, 2])))
            form = label_form(row, names)
            said = form | dict(second='' if form['second'] == '-' else form['second'])
            out = check_answer('categorical', said, None, names)
            assert out['first'] == names[row.argmax()] and abs(out['first_prob'] - row.max()) < .011 + .5*(row.max() < .02)

@pytest.mark.parametrize('database', ['sqlite', 'postgresql'])
def test_killed_under_load(database, tmp_path, monkeypatch):
    bench = load_bench()
    small = dict(n=30, kills=4, per_batch=9, dropouts=2, lease=.5, folder=tmp_path, seed=1)
    if database == 'sqlite': found, reports = bench.run(None, **small)
    else:
        monkeypatch.setenv('HMIX_SECRET', 'a secret for this test alone')
        with bench.postgres() as url:
            if url is None: pytest.skip('no initdb: PostgreSQL is not installed')
            found, reports = bench.run(url, **small)
    assert found | CLEAN == found, [r.odd for r in reports]
    assert found['kills'] == 4 and found['done'] == 30 and found['stopped'] == 2
    assert found['acknowledged'] >= 30*11
