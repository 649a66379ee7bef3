"What leaves the store: status, tables, the command line, and the way into the analysis."
import base64, io, random, re, signal, subprocess, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sklearn.datasets import load_digits

pytest.importorskip('fasthtml')
import httpx
from fastcore.xml import to_xml
from hmix_nb.analysis.answers import own_answers, read_table
from hmix_nb.cli import main
from hmix_nb.core import CIFAR10
from hmix_nb.data.judgments import categorical, coefficient, construct, select_shuffled, short_id
from hmix_nb.elicit.bots import audit, make_bots, send_bots
from hmix_nb.elicit.owner import FILES, owner_view, status
from hmix_nb.elicit.server import serve, walk
from hmix_nb.elicit.spec import TEMPLATES, Spec
from hmix_nb.elicit.store import Refused, Store
from hmix_nb.elicit.tables import export, hmix_csv, table_bytes, tidy
from hmix_nb.mixing.fits import PairFits, fit_pairs
from hmix_nb.softlabels.blends import Crowd, FittedParticipants

ROOT = Path(__file__).resolve().parent.parent
IDS = np.flatnonzero(np.isin(load_digits().target, (3, 5, 8))).tolist()
READERS = {'construct': construct, 'select-shuffled': select_shuffled, 'coefficient': coefficient,
           'categorical-blends': categorical, 'categorical-images': lambda p: categorical(p, 'cifar-10s')}

def images(n=12, classes=('cat', 'dog', 'frog'), seed=0):
    "Noise under names of CIFAR-10, which the readers of the released files know."
    g = np.random.default_rng(seed)
    return g.integers(0, 255, (n*len(classes), 12, 12, 3), dtype=np.uint8), np.repeat(np.arange(len(classes)), n)

def answered(template, n=None, folder=':memory:', **more):
    "A study that simulated people have been through, still open."
    spec = Spec.new(template, images(), **dict(classes=('cat', 'dog', 'frog'), n_pairs=4, per_batch=12, wanted=2, repeats=2) | more)
    handle = serve(spec, Store(folder, spec), quiet=True)
    reports = send_bots(make_bots(handle.url, spec, n or 2*len(spec.batches), seed=1))
    assert {r.end for r in reports} == {'done'} and audit(reports, handle.store)['lost'] == 0
    return handle, reports

@pytest.mark.parametrize('template', TEMPLATES)
def test_tables_of_every_task(template, tmp_path):
    handle, reports = answered(template)
    with handle:
        store, spec = handle.store, handle.store.spec
        table = tidy(store.answers(), spec)
        assert len(table) == len(store.answers()) == sum(len(r.answers) for r in reports)
        assert (table.groupby('participant').position.agg(list).map(lambda o: o == list(range(len(o))))).all()
        assert table['repeat'].groupby(table.participant).sum().eq(2).all()
        again = pd.read_parquet(io.BytesIO(table_bytes(table, 'parquet')))
        assert list(again) == list(table) and len(again) == len(table)
        if template == 'pairwise':
            with pytest.raises(ValueError, match='was not released'): hmix_csv(table)
            with pytest.raises(ValueError, match='pairwise choices'): read_table(export(store, tmp_path/'a.csv'))
            return
        own, = read_table(export(store, tmp_path/'a.csv')).values()
        if 'repairs' in own: own = own.assign(repairs='') # a CSV file has no empty text
        pd.testing.assert_frame_equal(own, table, check_dtype=False)
        raw = READERS[template](export(store, tmp_path/'raw.csv', hmix=True))
        same = table.assign(participant=table.participant.map(short_id))
        pd.testing.assert_frame_equal(raw, same, check_dtype=False, rtol=1e-12)
        assert len(own_answers(tmp_path/'a.csv').tables()) == 1
        more = tidy(store.answers(), spec, details=True)
        assert {'version', 'moved', 'shown', 'server_time'} <= set(more) and (more.version == spec.version).all()
        for name in ('d.csv', 'd.parquet'): assert export(store, tmp_path/name, details=True).stat().st_size > 500

@given(lam=st.integers(0, 100), sure=st.integers(0, 100), f=st.sampled_from([0, .1, .25, .5, .75, .9, 1]),
       rt=st.floats(0, 3e5), again=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_slider_survives_the_released_layout(tmp_path_factory, lam, sure, f, rt, again):
    row = dict(participant='p0a1b2c3d', stimulus=f'mixed_{f:g}_Cat_3_Dog_5', class_a='cat', id_a=3, class_b='dog', id_b=5,
               lam_f=float(f), lam_h=round(1-lam/100, 6), confidence=sure/100, repeat=again, position=0, rt_s=rt, round=1)
    table, path = pd.DataFrame([row]), tmp_path_factory.getbasetemp()/'one.csv'
    path.write_text(hmix_csv(table))
    back = coefficient(path).assign(participant='p0a1b2c3d')
    pd.testing.assert_frame_equal(back, table, check_dtype=False, rtol=1e-9, atol=1e-12)

def test_personal_ids_stay_behind(tmp_path):
    spec = Spec.new('coefficient', 'digits', ids=IDS, n_pairs=2, per_batch=12, wanted=1, repeats=1)
    store = Store(tmp_path/'s.db', spec)
    with serve(spec, store, quiet=True) as handle:
        who = dict(PROLIFIC_PID='60ab12cd34ef', STUDY_ID='study-7', SESSION_ID='session-8')
        token = send_bots(make_bots(handle.url, spec, 1, platform=who))[0].token
        out = [export(store, tmp_path/f'{k}.csv', **kw) for k, kw in
               dict(plain={}, details=dict(details=True), hmix=dict(hmix=True)).items()]
        shown = [o.read_text() for o in out] + [to_xml(owner_view(spec, store)), status(store).text()]
        shown += [str(owner_view(spec, store, f)[0]) for f in FILES]
        for text in shown:
            for secret in (token, *who.values(), store.secret.decode()): assert secret not in text
        with pytest.raises(Refused, match='secret'): export(store, tmp_path/'x.csv', secret='guess guess guess guess')
        assert not (tmp_path/'x.csv').exists()
        mine = pd.read_csv(export(store, tmp_path/'mine.csv', secret=store.secret))
        assert set(mine.platform) == {'60ab12cd34ef'} and len(mine) == len(store.answers())
        assert token not in (tmp_path/'mine.csv').read_text()

def test_what_strangers_wrote_is_marked_for_spreadsheets_alone(tmp_path):
    spec = Spec.new('coefficient', 'digits', ids=IDS, n_pairs=2, per_batch=12, wanted=1, repeats=1)
    store = Store(tmp_path/'s.db', spec)
    with serve(spec, store, quiet=True) as handle:
        send_bots(make_bots(handle.url, spec, 1, platform=dict(PROLIFIC_PID='=1+1')))
        store.enrol('-7f', {'=2+2': '@x'}) # as in a database of earlier days
        spec.save(tmp_path/'s.yaml')
        for kind, mark in (('csv', "'"), ('parquet', '')):
            read = getattr(pd, f'read_{kind}')
            table = read(export(store, tmp_path/f'a.{kind}', secret=store.secret))
            assert set(table.platform) == {f'{mark}=1+1'} and f'{mark}=2+2' in table
            words = ['export', str(tmp_path/'s.yaml'), str(tmp_path/f'p.{kind}'), '--payment', '--ids', str(tmp_path/'s.db.secret')]
            assert main(['elicit', *words]) == 0
            assert {f'{mark}=1+1', f'{mark}-7f'} <= set(read(tmp_path/f'p.{kind}').platform)

@pytest.mark.parametrize('kind, mark', [('csv', "'"), ('parquet', '')])
def test_last_words_are_handed_out(tmp_path, kind, mark):
    "To a file of one's own, and on the owner's page; a question by the name of a column of the platform's has one of its own."
    asked = [dict(id='platform', question='Which?', kind='choice', options=['phone', 'desk']), dict(id='free', question='Well?', kind='text')]
    spec = Spec.new('coefficient', 'digits', ids=IDS, n_pairs=2, per_batch=12, wanted=1, repeats=1, debrief=asked)
    spec.save(tmp_path/'s.yaml')
    with Store(str(tmp_path/'s.db'), spec) as store:
        with pytest.raises(ValueError, match='no answers yet'): owner_view(spec, store, 'debrief.csv')
        token = store.enrol('5f3a', {})
        walk(store, token, 'debrief')
        store.advance(token, 'debrief', dict(free='=1+1'))
        who = store.state(token).participant
        words = ['elicit', 'export', str(tmp_path/'s.yaml'), str(out := tmp_path/f'said.{kind}'), '--debrief']
        assert main(words) == 0
        read = getattr(pd, f'read_{kind}')
        table = read(out)
        assert [*table] == ['participant', 'version', 'platform', 'free'] and len(table) == 1
        assert table.iloc[0][['participant', 'version', 'free']].tolist() == [who, spec.version, f'{mark}=1+1'] and table.platform.isna().all()
        assert main([*words, '--ids', str(tmp_path/'s.db.secret')]) == 0
        table = read(out)
        assert table.platform_platform.tolist() == ['5f3a'] and table.free.tolist() == [f'{mark}=1+1']
        assert b"'=1+1" in owner_view(spec, store, 'debrief.csv')[0] and 'debrief.csv' in to_xml(owner_view(spec, store))
        assert 'debrief.csv' not in to_xml(owner_view(spec.replace(debrief=[]), store))

def test_an_analysis_of_pairwise_choices_is_refused_by_name(tmp_path, capsys):
    row = dict(participant='a', stimulus='x', interface='pairwise', pair='cat-dog', class_a='cat', class_b='dog', lam_f=.2, lam_f2=.4, lam_h=.2, choice='first')
    pd.DataFrame([row]).to_csv(tmp_path/'p.csv', index=False)
    assert main(['analyse', str(tmp_path/'p.csv'), '--out', str(tmp_path/'report')]) == 2
    err = capsys.readouterr().err
    assert 'p.csv: pairwise choices, of which no analysis is here' in err and err.count('\n') == 1

def test_the_owner_page_needs_no_import():
    code = ("import httpx\nfrom hmix_nb.elicit.spec import Spec\n"
            "with Spec.new('coefficient', 'digits', n_pairs=1).serve(':memory:', quiet=True) as h: print(httpx.get(h.owner_url).text, list(h.table()))")
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert '<svg' in said and 'payment.csv' in said and "'rt_s'" in said and "'key'" not in said # the tidy table, as later in the file

def test_a_link_is_found_where_the_study_was_served(photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    spec = Spec.load(Spec.new('coefficient', photos/'photos', n_pairs=2, name='pets').save(photos/'pets.yaml'))
    with Store('pets.db', spec) as store: token = store.enrol('5f')
    assert main(['elicit', 'link', 'pets.yaml', '5f']) == 2 and '--url' in capsys.readouterr().err # never served
    assert main(['elicit', 'link', 'pets.yaml', '5f', '--url', 'https://example.org']) == 0
    assert capsys.readouterr().out == f'https://example.org/p/{token}\n'
    asked, handle = [], SimpleNamespace(url='http://127.0.0.1:8000/', owner_url='http://127.0.0.1:8000/owner/x')
    monkeypatch.setattr('hmix_nb.elicit.server.serve', lambda *a, **kw: asked.append(kw['secure']) or handle)
    monkeypatch.setattr('hmix_nb.elicit.command._until_stopped', lambda handle: None)
    for more, base in ((['--url', 'https://study.example.org/pets/'], 'https://study.example.org/pets'), ([], 'http://127.0.0.1:8000')):
        assert main(['elicit', 'serve', 'pets.yaml', *more]) == 0
        capsys.readouterr()
        assert main(['elicit', 'link', 'pets.yaml', '5f']) == 0
        assert capsys.readouterr().out == f'{base}/p/{token}\n'
    assert asked == [True, False]

def test_status_before_anybody_came_and_of_every_task():
    for template in TEMPLATES:
        spec = Spec.new(template, 'digits', ids=IDS, n_pairs=2, per_batch=12, name=template)
        store = Store(':memory:', spec)
        now = status(store)
        assert '0 of 0' in now.text() and 'no answers yet' in now._repr_html_() and now.missing == len(spec.stimuli)*spec.wanted
        with pytest.raises(ValueError, match='no answers yet'): owner_view(spec, store, 'table.csv')
        with pytest.raises(ValueError, match='no answers yet'): export(store, 'nowhere.csv')

def test_what_an_owner_should_notice():
    "Two who leave, three wrong attempts, one who never moves a slider, one whose repeats contradict: all are counted."
    spec = Spec.new('coefficient', 'digits', ids=IDS, n_pairs=2, per_batch=24, wanted=4, repeats=2)
    clock = [1.8e9]
    store = Store(':memory:', spec, clock=lambda: clock[0])
    right, n = [q['answer'] for q in spec.comprehension], spec.n_trials(0)
    def go(answers, stop=None, wrong=0):
        token = store.enrol()
        store.advance(token, 'consent', dict(boxes=[True]*3))
        for k in range(wrong + 1):
            store.advance(token, 'instructions', {})
            store.advance(token, 'comprehension', dict(answers=right if k == wrong else [1-bool(o) for o in right]))
        while (s := store.state(token)).step == 'trials' and s.n_done != stop:
            clock[0] += 10
            mix, sure = answers(s.trial)
            store.submit(token, s.trial.id, dict(mix=mix, confidence=sure), key=f'key-{s.n_done:05d}', rt_ms=8000, moved=dict(mix=True, confidence=True))
    go(lambda t: (50, 50))
    go(lambda t: (0, 90) if t.repeat else (100, 90), wrong=3)
    go(lambda t: (20, 80), stop=2)
    go(lambda t: (20, 80), stop=1)
    s = status(store)
    assert (s.people['finished'], s.people['dropped'], s.people['active']) == (2, 0, 2)
    clock[0] += 7200
    s = status(store)
    assert {k: s.people[k] for k in ('started', 'finished', 'dropped', 'active')} == dict(started=4, finished=2, dropped=2, active=0)
    assert s.failed == (3, 1) and s.untouched == n and s.n_answers == 2*n + 3
    assert s.repeats == (4, .5) and s.seconds == 8 and s.minutes == pytest.approx(n/6)
    assert s.per_stimulus.max() <= 4 and s.missing == int((4 - s.per_stimulus).sum())
    assert s.curve[0].n.sum() == s.n_answers
    text = s.text()
    for part in ('2 of 4', '2 dropped', 'by 1 person', f'{n}', '0.50'): assert part in text, text

def test_the_live_page_stands_behind_a_token():
    handle, _ = answered('coefficient')
    with handle:
        page = httpx.get(handle.owner_url)
        assert page.status_code == 200 and 'id="owner"' in page.text and '<svg' in page.text
        links = re.findall(r'href="(/owner/[^"]+/[a-z]+\.[a-z]+)"', page.text)
        assert len(links) == len(FILES)
        for o in links: assert httpx.get(handle.url.rstrip('/') + o).headers['content-disposition'].startswith('attachment')
        base = handle.owner_url.rpartition('/')[0]
        for bad in ('guess', '', '../p', handle.owner_url.rpartition('/')[2][:-1]): assert httpx.get(f'{base}/{bad}').status_code == 404
        assert httpx.get(f'{handle.owner_url}/../../etc/passwd').status_code == 404
        assert httpx.get(f'{handle.owner_url}/secrets.csv').status_code == 404
        assert len(handle.table()) == len(handle.store.answers())

def known_fits(classes, seed=0):
    "A curve for each two classes, with parameters that are ours."
    g, names = np.random.default_rng(seed), sorted(classes)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i+1:]]
    of = PairFits.shipped('partial')
    table = pd.DataFrame([of.table.iloc[0]]*len(pairs), index=pd.MultiIndex.from_tuples(pairs, names=['class_a', 'class_b']))
    return replace(of, table=table.assign(k=g.uniform(3.5, 7.5, len(pairs)), x0=g.uniform(.42, .58, len(pairs))))

@pytest.mark.parametrize('classes', [CIFAR10[:5]])
def test_round_trip_into_the_analysis(tmp_path, classes, monkeypatch):
    "The parameters that the bots were given come back from `hmix analyse`, within its intervals."
    lots = random.Random(0)
    monkeypatch.setattr('secrets.randbelow', lots.randrange) # who gets which batch
    monkeypatch.setattr('secrets.token_urlsafe', lambda n=32: base64.urlsafe_b64encode(lots.randbytes(n)).decode().rstrip('=')) # and order
    fits = known_fits(classes)
    x, y = images(14, classes)
    spec = Spec.new('coefficient', (x, y), classes=classes, n_pairs=14, per_batch=60, wanted=4, repeats=[15, 20], name='mixes')
    people = FittedParticipants(4*len(spec.batches), 3, replace(Crowd.shipped(), end_gain=1.), fits)
    with serve(spec, Store(tmp_path/'mixes.db', spec), quiet=True) as handle:
        reports = [send_bots([o])[0] for o in make_bots(handle.url, spec, people.n, people)] # in turns: all runs are alike
        assert audit(reports, handle.store) | dict(acknowledged=0) == dict(acknowledged=0, lost=0, twice=0, altered=0, over=0, odd=0)
        path = export(handle.store, tmp_path/'mixes.csv')
    assert main(['analyse', str(path), '--out', str(tmp_path/'out'), '--no-figures']) == 0
    found = pd.read_csv(tmp_path/'out'/'tables'/'fits.csv').set_index(['class_a', 'class_b'])
    for n in ('k', 'x0'):
        z = (found[n] - fits.table[n])/found[f'robust_se_{n}']
        assert z.abs().max() < 4 and (z.abs() < 1.96).mean() >= .8, (n, z)
        assert np.corrcoef(found[n], fits.table[n])[0, 1] > .5
    ours = fit_pairs(read_table(path)['coefficient'])
    pd.testing.assert_series_equal(ours.table.k.reset_index(drop=True), found.k.reset_index(drop=True), check_exact=False, rtol=1e-4)

def shell(*words, cwd, **kw):
    code = 'import sys; from hmix_nb.cli import main; sys.exit(main())'
    return subprocess.run([sys.executable, '-c', code, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=120, **kw)

@pytest.fixture
def photos(tmp_path):
    g = np.random.default_rng(0)
    for name in ('cat', 'dog', 'owl', 'red_panda'):
        (tmp_path/'photos'/name).mkdir(parents=True)
        for i in range(10): Image.fromarray(g.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path/'photos'/name/f'{i}.jpg')
    return tmp_path

def test_five_commands_from_a_folder_to_a_table(photos):
    r = shell('elicit', 'new', 'coefficient', '--images', 'photos', '--name', 'pets', '--pairs', 2, '--wanted', 1, cwd=photos)
    assert r.returncode == 0 and 'hmix elicit check pets.yaml' in r.stdout, r.stderr
    r = shell('elicit', 'check', 'pets.yaml', cwd=photos)
    assert r.returncode == 0 and 'can be shown' in r.stdout, r.stderr
    spec = Spec.load(photos/'pets.yaml')
    code = 'import sys; from hmix_nb.cli import main; sys.exit(main())'
    for what in ('preview', 'serve'):
        words = [sys.executable, '-c', code, 'elicit', what, 'pets.yaml', '--port', '0']
        behind = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN) # as a shell starts what shall run in the background
        more = dict(preexec_fn=behind) if what == 'serve' else {}
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=photos, **more) as p:
            said = ''
            while 'Ctrl-C' not in said:
                line = p.stdout.readline()
                assert line, said
                said += line
            url = re.search(r'http://\S+', said)[0]
            reports = send_bots(make_bots(url, spec, len(spec.batches)))
            p.terminate()
            assert p.wait(20) == 0
        assert {o.end for o in reports} == {'done'}
        assert (photos/'pets.db').exists() == (what == 'serve')
    r = shell('elicit', 'status', 'pets.yaml', cwd=photos)
    assert f'{len(reports)} of {len(reports)}' in r.stdout, r.stderr
    r = shell('elicit', 'export', 'pets.yaml', 'answers.csv', cwd=photos)
    assert r.returncode == 0 and 'analyse answers.csv' in r.stdout, r.stderr
    assert shell('elicit', 'export', 'pets.yaml', 'pay.csv', '--payment', cwd=photos).returncode == 0
    assert shell('elicit', 'export', 'pets.yaml', 'ids.csv', '--ids', 'pets.db.secret', cwd=photos).returncode == 0
    assert len(read_table(photos/'answers.csv')['coefficient']) == sum(len(o.answers) for o in reports)

@pytest.mark.parametrize('words, said', [
    ('new coeficient --images photos', "did you mean 'coefficient'"), ('new coefficient --images fotos', 'is no folder'),
    ('new coefficient --images .', 'images'), ('check nothing.yaml', 'is no file'), ('check broken.yaml', 'broken.yaml'),
    ('check unknown.yaml', 'repaets'), ('status good.yaml', 'not there yet'), ('export good.yaml a.csv', 'not there yet'),
    ('new coefficient --images photos --out good.yaml', 'is there already'), ('new coefficient --images photos --pairs 500', 'n_pairs'),
    ('new coefficient --images photos --language xx', 'language'), ('new coefficient --images photos --lams .1-.5', '--lams'),
    ('new coefficient --images photos --lams 1.5', 'lams'), ('new coefficient --images photos --high .5', 'no entropy'),
    ('new coefficient --images photos --high .5 --entropy odd.csv', "no image 'cat/77.jpg'"),
    ('new coefficient --images photos --entropy good.yaml', 'entropy'), ('new coefficient --images photos --entropy no.csv', 'is no file'),
    ('new coefficient --images photos --stimuli empty.csv', 'one row or more'),
    ('new coefficient --images photos --stimuli odd.csv', 'lacks class_a or id_a'),
    ('new coefficient --images photos --stimuli odd.csv --pairs 3', 'leave --pairs out'),
    ('new coefficient --images photos --words no.yaml', 'is no file'), ('words good.yaml', 'is there already'),
    ('words x.yaml --language xx', 'language'), ('serve good.yaml --url study.example.org', '--url'),
    ('serve good.yaml --url https://example.org/a?b=1', '--url'), ('serve good.yaml --url https://user:pw@example.org', '--url'),
    ('export good.yaml a.csv --db mysql://x/y', 'url')])
def test_errors_in_one_line(photos, words, said, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    Spec.new('coefficient', photos/'photos', n_pairs=2).save(photos/'good.yaml')
    (photos/'odd.csv').write_text('file,entropy\ncat/77.jpg,.5\n')
    (photos/'empty.csv').write_text('id_a,id_b,lam_f\n')
    (photos/'broken.yaml').write_text('name: [1, 2\nx: }')
    (photos/'unknown.yaml').write_text((photos/'good.yaml').read_text().replace('repeats:', 'repaets:', 1))
    capsys.readouterr()
    assert main(['elicit', *words.split()]) == 2
    err = capsys.readouterr().err
    assert said.lower() in err.lower() and err.count('\n') == 1 and 'Traceback' not in err, err

def new(photos, *words):
    r = shell('elicit', 'new', *words, '--images', 'photos', '--name', 'asked', '--force', cwd=photos)
    assert r.returncode == 0, r.stderr
    return Spec.load(photos/'asked.yaml').check(files=True)

@pytest.mark.parametrize('what', ['serve', 'preview'])
def test_no_link_is_given_to_pages_without_their_images(photos, what, capsys, monkeypatch):
    "As where the file of a study was copied to a server, and its photographs were not."
    monkeypatch.chdir(photos)
    spec = Spec.new('coefficient', photos/'photos', n_pairs=2)
    spec.save(photos/'pets.yaml')
    monkeypatch.setattr('hmix_nb.elicit.server.serve', lambda *a, **kw: pytest.fail('served'))
    (photos/'photos'/spec.images[0]['file']).rename(photos/'renamed.jpg')
    capsys.readouterr()
    assert main(['elicit', what, 'pets.yaml']) == 2
    out = capsys.readouterr()
    assert Path(spec.images[0]['file']).name in out.err and 'cannot be read' in out.err and out.err.count('\n') == 1 and not out.out and not (photos/'pets.db').exists()

def test_what_is_shown_may_be_said_in_the_shell(photos):
    "Mixtures, shares of ambiguous images, a table of stimuli, and a translation."
    (photos/'photos'/'owl'/'a.HEIC').write_bytes(b'x')
    said = shell('elicit', 'new', 'coefficient', '--images', 'photos', '--name', 'other', cwd=photos).stdout
    assert 'Left out of photos: 1 file .heic.' in said
    spec = new(photos, 'coefficient', '--pairs', '4', '--lams', '.3,.4', '.6')
    assert len(spec.stimuli) == 2*4*6 and {s['lam_f'] for s in spec.stimuli} == {.3, .4, .6}
    assert sum(s['lam_f'] == .6 for s in spec.stimuli) == 24
    rows = [(f'{c}/{i}.jpg', .05 if i < 5 else .4) for c in ('cat', 'dog', 'owl', 'red_panda') for i in range(10)]
    pd.DataFrame(rows, columns=['file', 'entropy']).to_csv(photos/'entropy.csv', index=False)
    spec = new(photos, 'categorical-images', '--pairs', '4', '--high', '.75', '--entropy', 'entropy.csv')
    e = {o['id']: o['entropy'] for o in spec.images}
    assert sorted(e[s['id_a']] for s in spec.stimuli) == [.05]*4 + [.4]*12
    files = {o['id']: o['file'] for o in spec.images}
    own = pd.DataFrame(dict(id_a=['cat/0.jpg', 'dog/3.jpg', 'cat/0.jpg'], id_b=['red_panda/1.jpg']*3, lam_f=[.15, .35, .85]))
    own.to_csv(photos/'own.csv', index=False)
    spec = new(photos, 'coefficient', '--stimuli', 'own.csv', '--per-batch', '2')
    files = {o['id']: o['file'] for o in spec.images}
    assert [(files[s['id_a']], files[s['id_b']], s['lam_f']) for s in spec.stimuli] == [*own.itertuples(index=False, name=None)]
    assert sorted(map(len, spec.batches.values())) == [1, 2] and spec.stimuli[0]['class_b'] == 'red panda'
    assert shell('elicit', 'words', 'nl.yaml', cwd=photos).returncode == 0
    text = (photos/'nl.yaml').read_text(encoding='utf-8')
    (photos/'nl.yaml').write_text(text.replace('next: Next', 'next: Volgende'), encoding='utf-8')
    spec = new(photos, 'construct', '--words', 'nl.yaml')
    assert (spec.language, spec.text('next')) == ('nl', 'Volgende')

def test_a_changed_study_is_refused_and_told(photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    spec = Spec.new('coefficient', photos/'photos', n_pairs=2, wanted=1, name='pets', per_batch=6)
    path = spec.save(photos/'pets.yaml')
    spec = Spec.load(path)
    with serve(spec, Store('pets.db', spec), quiet=True) as handle: send_bots(make_bots(handle.url, spec, 1))
    spec.replace(size=200).save(path)
    assert main(['elicit', 'status', 'pets.yaml']) == 2
    assert '--changed apart' in capsys.readouterr().err
    assert main(['elicit', 'status', 'pets.yaml', '--changed', 'apart']) == 0
    kept = Store('pets.db', Spec.load(path), changed='apart').answers()
    assert set(kept.version) == {spec.version} # what was answered stays, under its version

def test_help_is_quick_and_light():
    code = "import sys, hmix_nb.cli as c; c.parser().format_help(); print([m for m in ('torch', 'pandas', 'numpy', 'fasthtml', 'sqlalchemy') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == '[]'
