"The server under hands that are clumsy or hostile: nothing is lost, nothing comes in that the study forbids."
import asyncio, re, socket, sys, threading
from html import unescape
from pathlib import Path
import httpx, pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from starlette.testclient import TestClient
from hmix_nb.elicit import server
from hmix_nb.elicit.guard import Limits
from hmix_nb.elicit.server import make_app, preview, serve, walk
from hmix_nb.elicit.spec import Spec
from hmix_nb.elicit.store import Store

TEMPLATES = ('construct', 'select-shuffled', 'coefficient', 'categorical-blends', 'pairwise')
OFF = Limits(off=True)

def small(template='coefficient', **fields):
    "A study of three trials and one repeat, on the digits."
    spec = Spec.new(template, 'digits', n_pairs=1, seed=1, **fields)
    return spec.replace(stimuli=tuple({**o, 'batch': 0} for o in spec.stimuli[:3]), repeats=1, wanted=9999)

class Site:
    "A study's application with a browser before it."
    def __init__(self, template='coefficient', limits=OFF, **kw):
        self.spec = small(template)
        self.store = Store(':memory:', self.spec)
        self.app = make_app(self.spec, self.store, limits=limits, **kw)
        self.client = TestClient(self.app, follow_redirects=False, raise_server_exceptions=True)

    def come(self, step='trials', client=None):
        token = self.store.enrol()
        walk(self.store, token, step)
        return token, self.fields(token, client)

    def fields(self, token, client=None):
        return hidden((client or self.client).get(f'/p/{token}').text)

def hidden(html): return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', html))

@pytest.fixture
def site(): return Site()

GOOD = dict(mix='20', confidence='90', moved_mix='1', moved_confidence='1', rt_ms='1500', client_time='1767225600000')

def test_looking_changes_nothing(site):
    for path in ('/', '/?PROLIFIC_PID=x', '/favicon.ico', '/robots.txt', '/p/' + 'x'*22, '/owner/x'): site.client.get(path)
    assert len(site.store.participants()) == 0
    token, _ = site.come()
    before = site.store.state(token)
    for path in (f'/p/{token}', f'/p/{token}?page=2&say=late', f'/p/{token}/answer'): site.client.get(path)
    assert site.store.state(token) == before

def test_looking_takes_no_place(site):
    site.spec = site.spec.replace(wanted=1, lease_minutes=1)
    now = [1e9]
    site.store = Store(':memory:', site.spec, clock=lambda: now[0])
    site.app = make_app(site.spec, site.store, limits=OFF)
    site.client = TestClient(site.app, follow_redirects=False)
    gone, _ = site.come('instructions')
    waits = site.store.enrol()
    assert site.store.advance(waits, 'consent', {'boxes': [True]*3}).step == 'full'
    def press(token, say=''):
        r = site.client.post(f'/p/{token}/resume', data=site.fields(token))
        assert (r.status_code, r.headers['location']) == (303, f'/p/{token}{say}')
    press(waits, '?say=full') # nothing is free as yet
    now[0] += 61 # now the first one's place is
    before = site.store.participants()
    for token in (waits, gone):
        for query in ('', '?page=1', '?back=1', '?say=full'): assert f'action="/p/{token}/resume"' in site.client.get(f'/p/{token}{query}').text
    assert site.store.participants().equals(before)
    press(waits)
    assert site.store.state(waits).step == 'instructions' and site.store.state(waits).batch is not None
    press(gone, '?say=full')
    assert site.store.state(gone).step == 'full' and site.store.participants().n_expired.sum() == 1
    assert [site.client.post(f'/p/{o}/resume', data=dict(a='1')).status_code for o in (gone, 'x'*22)] == [403, 404]

def test_who_was_away_loses_nothing(site):
    token, form = site.come()
    start = site.store.clock()
    site.store.clock = lambda: start + 60*site.spec.lease_minutes + 1
    r = site.client.post(f'/p/{token}/answer', data={**form, **GOOD, 'mix': '101'}) # the tab was still open
    assert r.status_code == 422 and 'value="90"' in r.text and '/answer"' in r.text
    assert '/resume"' in site.client.get(f'/p/{token}').text
    assert site.client.post(f'/p/{token}/answer', data={**form, **GOOD}).headers['location'] == f'/p/{token}'
    assert '/answer"' in site.client.get(f'/p/{token}').text and len(site.store.answers()) == 1

def test_headers(site):
    token, _ = site.come()
    page = site.client.get(f'/p/{token}')
    picture = re.search(r'src="(/media/[^"]+)"', page.text)[1]
    style = re.search(r'href="(/static/[^"]+css)"', page.text)[1]
    for r in (page, site.client.get(picture), site.client.get(style), site.client.get('/nothing'), site.client.put('/')):
        csp = dict(o.split(' ', 1) for o in r.headers['content-security-policy'].split('; '))
        assert csp == {'default-src': "'none'", 'img-src': "'self'", 'script-src': "'self'", 'style-src': "'self'", 'form-action': "'self'",
                       'base-uri': "'none'", 'frame-ancestors': "'none'"}
        assert r.headers['x-content-type-options'] == 'nosniff' and 'access-control-allow-origin' not in r.headers and 'server' not in r.headers
    assert page.headers['cache-control'] == 'no-store'
    assert 'immutable' in site.client.get(picture).headers['cache-control'] and site.client.get(picture).content[:4] == b'\x89PNG'
    cookie = TestClient(site.app).get(f'/p/{token}').headers['set-cookie'].lower()
    assert 'httponly' in cookie and 'samesite=lax' in cookie
    assert '<style' not in page.text and ' style=' not in page.text and not re.search(r'<script(?! src="/static/)|\son\w+=', page.text)
    assert not re.search(r'(src|href|action)="(https?:)?//', page.text)

def test_an_answer_is_stored_before_the_next_page_is_sent(site):
    token, form = site.come()
    r = site.client.post(f'/p/{token}/answer', data={**form, **GOOD})
    assert (r.status_code, r.headers['location']) == (303, f'/p/{token}')
    row = site.store.answers().iloc[0]
    assert (row.lam_h, row.confidence, row.rt_s, row.key) == (.8, .9, 1.5, form['key'])
    assert row.moved == dict(mix=True, confidence=True) and str(row.client_time).startswith('2026-01-01')

def test_forms_need_their_token_and_cookie(site):
    token, form = site.come()
    other, theirs = site.come()
    stranger = TestClient(site.app, follow_redirects=False)
    for client, given in ((site.client, {**form, 'csrf': ''}), (site.client, {**form, 'csrf': theirs['csrf']}), (stranger, form),
                          (site.client, {k: v for k, v in form.items() if k != 'csrf'})):
        assert client.post(f'/p/{token}/answer', data={**given, **GOOD}).status_code == 403
    assert site.client.post('/', data=dict(csrf=form['csrf'], key='k'*16)).status_code == 403
    assert len(site.store.answers()) == 0 and len(site.store.participants()) == 2
    assert site.client.post(f'/p/{token}/answer', data={**form, **GOOD}).status_code == 303

def test_sent_twice_replayed_reordered_foreign(site):
    token, form = site.come()
    other, theirs = site.come()
    post = lambda token, given: site.client.post(f'/p/{token}/answer', data={**GOOD, **given}).headers['location']
    later = {**form, 'trial': site.spec.order(token, 0)[2].id}
    assert post(token, later).endswith('say=early')
    assert post(token, {**form, 'trial': theirs['trial']}).endswith('say=foreign')
    assert post(token, form) == post(token, form) == f'/p/{token}'
    assert post(token, {**form, 'key': 'another-key'}).endswith('say=late')
    now = site.fields(token)
    assert post(token, {**now, 'key': form['key']}) == f'/p/{token}' # a used key: nothing new
    assert post(token, {**now, 'key': 'x'}).endswith('say=malformed')
    assert len(site.store.answers()) == 1
    notice = site.client.get(f'/p/{token}?say=late').text
    assert site.spec.text('refused.late') in notice.replace('&#39;', "'")
    assert 'alert(1)' not in site.client.get(f'/p/{token}?say=alert(1)').text

def test_no_field_breaks_the_page_that_comes_back():
    for template in TEMPLATES:
        site = Site(template)
        token, form = site.come()
        for bad in ('x', 'nan', '-1', '1e9', '<b>', '٣', '0.5e', '9'*400):
            fields = dict.fromkeys(('lam', 'mix', 'confidence', 'choice', 'first', 'first_prob', 'second', 'second_prob', 'impossible'), bad)
            r = site.client.post(f'/p/{token}/answer', data={**form, **fields, 'moved_mix': '1', 'moved_confidence': '1', 'rt_ms': '1'})
            assert r.status_code == 422 and '<b>' not in r.text
        assert len(site.store.answers()) == 0

@pytest.mark.parametrize('bad', [dict(mix='101'), dict(mix='nan'), dict(mix='1e3'), dict(mix=''), dict(mix='<b>'), dict(confidence='-1'),
                                 dict(moved_mix='', mix='50'), dict(mix='٣'), dict(mix='9'*400)])
def test_what_the_study_forbids_comes_back_with_words(site, bad):
    token, form = site.come()
    r = site.client.post(f'/p/{token}/answer', data={**form, **GOOD, **bad})
    assert r.status_code == 422 and re.search(r'role="alert"[^>]*><p>[A-Z]', r.text) and len(site.store.answers()) == 0
    assert '<b>' not in r.text
    if bad.get('confidence', '90') == '90': assert 'name="confidence" min="0" max="100" step="1" value="90"' in r.text # kept
    assert site.client.post(f'/p/{token}/answer', data={**hidden(r.text), **GOOD}).status_code == 303

@pytest.mark.parametrize('second, said', [('', 'required'), ('two', 'required'), ('-', 'second_missing')])
def test_a_second_percentage_is_never_dropped(second, said):
    site = Site('categorical-blends')
    token, form = site.come()
    names = site.spec.classes
    second = list(names[1:3]) if second == 'two' else second
    r = site.client.post(f'/p/{token}/answer', data={**form, 'first': names[0], 'first_prob': '50', 'second': second, 'second_prob': '20'})
    assert r.status_code == 422 and len(site.store.answers()) == 0
    assert site.spec.text(f'error.{said}') in unescape(r.text)

def test_bodies(site):
    token, form = site.come()
    url, kind = f'/p/{token}/answer', {'content-type': 'application/x-www-form-urlencoded'}
    def chunks():
        for _ in range(40): yield b'a'*4096
    for status, kw in ((413, dict(content=b'a'*140_000, headers=kind)), (413, dict(content=chunks(), headers=kind)), (400, dict(content=b'a=\xff\xfe', headers=kind)),
                       (400, dict(content=b'a=%ff', headers=kind)), (400, dict(content=b'a=%00', headers=kind)), (400, dict(content=b'&'.join([b'a=1']*200), headers=kind)),
                       (415, dict(json={})), (415, dict(files=dict(f=b'x'))), (415, dict(content=b'', headers={'content-type': ''}))):
        r = site.client.post(url, **kw)
        assert r.status_code == status and '<h1' in r.text, kw
    assert len(site.store.answers()) == 0

def test_methods_and_addresses(site):
    token, _ = site.come()
    for method in ('PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'BREW'):
        r = site.client.request(method, f'/p/{token}')
        assert r.status_code == 405 and 'GET' in r.headers['allow'] and '<h1' in r.text
    assert site.client.post(f'/p/{token}').status_code == 405 and site.client.put(f'/p/{token}/answer').status_code == 405
    assert site.client.head(f'/p/{token}').status_code == 200 and site.client.head(f'/p/{token}').text == ''
    assert site.client.get(f'/p/{token}/').status_code == 404

def test_no_path_reaches_the_file_system(site):
    opened, armed = [], threading.Event()
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if armed.is_set() and event in ('open', 'os.listdir', 'os.scandir') else None)
    for path in ('../setup.py', '..%2f..%2fsetup.py', '%2e%2e/%2e%2e/etc/passwd', '....//etc/passwd', '/etc/passwd', '%00.png', 'elicit.css%00', '..\\setup.py',
                 'etc-passwd', '%c0%ae%c0%ae/etc', 'file:///etc/passwd'):
        for base in ('/static/', '/static/x/', '/media/', '/p/', '/owner/', '/'):
            armed.set()
            r = site.client.get(base + path)
            armed.clear()
            assert r.status_code == 404, base + path
    package = str(Path(server.__file__).parent) # once read, the static files are kept; nothing else is ever opened
    assert not [o for o in opened if not o.startswith((package, sys.prefix, sys.base_prefix))], opened

def test_static_is_a_table(site):
    from hmix_nb.elicit.web import static_files, static_url
    for name, (data, kind, _) in static_files().items():
        r = site.client.get(static_url(name))
        assert r.content == data and r.headers['content-type'] == kind and 'immutable' in r.headers['cache-control']
        assert site.client.get(f'/static/old/{name}').headers['cache-control'] == 'no-cache'

def test_limits():
    site = Site(limits=Limits(per_token=(.001, 3), per_address=(.001, 6)))
    (a, _), (b, _) = site.come(), site.come() # one page each
    codes = [site.client.get(f'/p/{a}').status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert site.client.get(f'/p/{b}').status_code == 200
    assert [site.client.get('/').status_code for _ in range(3)] == [200, 429, 429]
    r = site.client.get('/')
    assert r.headers['retry-after'] and '<h1' in r.text and r.headers['content-security-policy']
    assert site.client.get('/static/x/elicit.css').status_code == 200 # pictures and styles are not counted

def test_a_store_that_fails_loses_nothing(site, monkeypatch):
    token, form = site.come()
    with monkeypatch.context() as m:
        m.setattr(site.store, 'submit', lambda *a, **k: (_ for _ in ()).throw(OSError('disk is full')))
        r = site.client.post(f'/p/{token}/answer', data={**form, **GOOD})
    assert r.status_code == 503 and 'disk' not in r.text and r.headers['retry-after']
    assert site.client.post(f'/p/{token}/answer', data={**form, **GOOD}).headers['location'] == f'/p/{token}' # the same form again
    assert len(site.store.answers()) == 1

def failing(*_, **__): raise OSError('disk is full')

@pytest.fixture
def words(site): # at the last page, with long words in its form
    token, form = site.come('debrief')
    field = next(q['id'] for q in site.spec.debrief if q['kind'] == 'text')
    return token, f'/p/{token}/debrief', field, {**form, field: 'Grüße <b>\n' + 'long '*700}

def still_there(r, field, words):
    area = re.search(f'<textarea[^>]*name="{field}"[^>]*>(.*?)</textarea>', r.text, re.S)
    return area and unescape(area[1]).strip() == words.strip()

def test_written_words_come_back_when_the_store_fails(site, words, monkeypatch):
    token, url, field, form = words
    with monkeypatch.context() as m:
        for name in ('advance', 'state'): # of which the second fails where the whole database does
            m.setattr(site.store, name, failing)
            r = site.client.post(url, data=form)
            assert r.status_code == 503 and r.headers['retry-after'] and still_there(r, field, form[field]) and 'disk' not in r.text
    assert site.client.post(url, data={**form, **hidden(r.text)}).headers['location'] == f'/p/{token}' and site.store.state(token).step == 'done'

def test_written_words_come_back_when_the_cookie_is_gone(site, words):
    token, url, field, form = words
    site.client.cookies.clear() # as on a phone that opens a tab of yesterday
    r = site.client.post(url, data=form, headers={'sec-fetch-site': 'same-origin'})
    assert r.status_code == 403 and still_there(r, field, form[field]) and 'hmix' in site.client.cookies
    assert site.client.post(url, data={**form, **hidden(r.text)}).headers['location'] == f'/p/{token}' and site.store.state(token).step == 'done'

def test_a_form_of_another_site_gets_nothing(site, words):
    token, url, field, form = words
    for client in (site.client, TestClient(site.app)):
        r = client.post(url, data=form, headers={'sec-fetch-site': 'cross-site'})
        assert r.status_code == 403 and 'textarea' not in r.text and 'set-cookie' not in r.headers
    assert site.store.state(token).step == 'debrief'

def test_no_words_are_too_many_or_too_odd(site):
    fields = [q['id'] for q in site.spec.debrief if q['kind'] == 'text']
    for words, kept in (('猫'*4000, '猫'*4000), ('long\x0bwords\x0c pasted\x1b\x07', 'long\nwords\n pasted')): # as many as the boxes hold
        token, form = site.come('debrief')
        assert site.client.post(f'/p/{token}/debrief', data={**form, **dict.fromkeys(fields, words)}).headers['location'] == f'/p/{token}'
        assert site.store.events().data.iloc[-1] == dict.fromkeys(fields, kept)

def test_written_words_come_back_when_it_was_too_fast():
    site = Site(limits=Limits(per_token=(.001, 1)))
    token, form = site.come('debrief')
    field = next(q['id'] for q in site.spec.debrief if q['kind'] == 'text')
    r = site.client.post(f'/p/{token}/debrief', data={**form, field: 'words'})
    assert r.status_code == 429 and still_there(r, field, 'words') and site.store.state(token).step == 'debrief'
    assert site.client.post(f'/p/{token}/debrief', content=b'x=%ff').status_code == site.client.post(f'/p/{token}/answer', data=form).status_code == 429

def test_a_start_with_an_old_page_starts_with_the_next(site):
    form = hidden(site.client.get('/?PROLIFIC_PID=abc').text)
    site.client.cookies.clear()
    r = site.client.post('/', data=form)
    assert r.status_code == 403 and hidden(r.text)['PROLIFIC_PID'] == 'abc' and len(site.store.participants()) == 0
    assert site.client.post('/', data=hidden(r.text)).status_code == 303 and site.store.link('abc')

def test_values_of_one_trial_are_never_shown_in_another(site):
    token, old = site.come()
    assert site.client.post(f'/p/{token}/answer', data={**old, **GOOD}).status_code == 303
    site.client.cookies.clear()
    assert site.client.post(f'/p/{token}/answer', data={**old, **GOOD}).headers['location'].endswith('say=late')
    new = site.fields(token)
    site.client.cookies.clear()
    r = site.client.post(f'/p/{token}/answer', data={**new, **GOOD})
    assert r.status_code == 403 and 'name="mix" min="0" max="100" step="1" value="20"' in r.text
    assert site.client.post(f'/p/{token}/answer', data={**hidden(r.text), **GOOD}).status_code == 303 and len(site.store.answers()) == 2

def test_every_address_leads_back_to_the_personal_link(site):
    token, form = site.come('consent')
    assert site.client.post(f'/p/{token}/consent', data=form).status_code == 422 # now the browser shows this address
    for step in (*STEPS, 'resume'):
        r = site.client.get(f'/p/{token}/{step}')
        assert (r.status_code, r.headers['location']) == (303, f'/p/{token}')
        assert site.client.get(f'/p/nobody/{step}').status_code == 404

def test_the_log_holds_no_link(caplog):
    def view(spec, store, what='', base=''): raise RuntimeError('no view')
    site = Site(owner=view)
    token, form = site.come()
    owner = site.app.state.owner_token
    assert site.client.get(f'/owner/{owner}').status_code == site.client.get(f'/owner/{owner}/part').status_code == 503
    with site.store._write() as con: con.exec_driver_sql('ALTER TABLE participants RENAME TO elsewhere')
    assert site.client.get(f'/p/{token}').status_code == site.client.post(f'/p/{token}/answer', data={**form, **GOOD}).status_code == 503
    assert caplog.text.count('Traceback') >= 4 and 'no view' in caplog.text and 'no such table' in caplog.text
    assert owner not in caplog.text and token not in caplog.text

def test_enrolling(site):
    r = site.client.get('/?PROLIFIC_PID=abc&STUDY_ID=s1&SESSION_ID=%3Cb%3E&csrf=x&key=y')
    form = hidden(r.text)
    assert form['PROLIFIC_PID'] == 'abc' and form['csrf'] != 'x' and '<b>' not in r.text
    first = site.client.post('/', data=form).headers['location']
    assert site.client.post('/', data=form).headers['location'] == first
    again = hidden(site.client.get('/?PROLIFIC_PID=abc').text)
    assert site.client.post('/', data=again).headers['location'] == first # back by the platform: where they were
    plain = hidden(site.client.get('/').text) # without a platform: a double click is one person
    assert site.client.post('/', data=plain).headers['location'] == site.client.post('/', data=plain).headers['location'] != first
    assert len(site.store.participants()) == 2 and 'abc' not in str(site.store.participants()) + str(site.store.answers())
    assert site.client.post('/', data={**again, 'PROLIFIC_PID': 'x'*201, 'key': 'a-new-key'}).status_code == 400

def come_by(site, query, client=None):
    "Press the button on the page of an address with `query`; the participant's token."
    client = client or TestClient(site.app, follow_redirects=False)
    return client.post('/', data=hidden(client.get('/?' + query).text)).headers['location'].rpartition('/')[2]

def test_an_id_that_others_know_opens_nothing(site):
    victim = site.client
    token = come_by(site, 'PROLIFIC_PID=victim', victim)
    site.client.post(f'/p/{token}/consent', data=site.fields(token) | {f'box{i}': '1' for i in range(3)})
    thief = TestClient(site.app, follow_redirects=False)
    form = hidden(thief.get('/?PROLIFIC_PID=victim').text)
    for given in (form, {**form, 'key': 'another-key'}, {**form, 'browser': victim.cookies['hmix']}):
        r = thief.post('/', data=given)
        assert r.status_code == 409 and 'location' not in r.headers and token not in r.text + str(r.headers)
        assert site.spec.text('refused.began').splitlines()[0] in unescape(r.text)
    site.app = make_app(site.spec, site.store, limits=OFF) # also after a restart
    for client, code in ((TestClient(site.app, cookies=dict(victim.cookies), follow_redirects=False), 303), (TestClient(site.app, follow_redirects=False), 409)):
        assert client.post('/', data=hidden(client.get('/?PROLIFIC_PID=victim').text)).status_code == code
    assert come_by(site, 'PROLIFIC_PID=victim', victim) == token == site.store.link('victim') and site.store.link('nobody') is None
    assert len(site.store.participants()) == 1

def test_who_enrols_by_an_id_and_does_not_consent_holds_nothing(site):
    thief, victim = (TestClient(site.app, follow_redirects=False) for _ in range(2))
    early = hidden(thief.get('/?PROLIFIC_PID=victim').text)
    taken, mine = thief.post('/', data=early).headers['location'].split('/')[-1], come_by(site, 'PROLIFIC_PID=victim', victim)
    assert thief.get(f'/p/{taken}').status_code == 404 and site.store.link('victim') == mine != taken
    boxes = {f'box{i}': '1' for i in range(3)}
    again = thief.post('/', data=early).headers['location'].split('/')[-1] # the form of before, which led to a link that is gone
    assert thief.get(f'/p/{again}').status_code == 200 and victim.get(f'/p/{mine}').status_code == 404
    mine = come_by(site, 'PROLIFIC_PID=victim', victim)
    assert victim.post(f'/p/{mine}/consent', data=site.fields(mine, victim) | boxes).headers['location'] == f'/p/{mine}'
    assert thief.post('/', data=early).status_code == 409
    assert site.store.link('victim') == mine and len(site.store.participants()) == 1

def test_a_form_that_is_pressed_again_after_another_device_took_the_id_leads_on(site):
    phone, laptop = (TestClient(site.app, follow_redirects=False) for _ in range(2))
    form = hidden(phone.get('/?PROLIFIC_PID=abc').text)
    first, second = phone.post('/', data=form).headers['location'], '/p/' + come_by(site, 'PROLIFIC_PID=abc', laptop)
    assert first != second and phone.get(first).status_code == 404
    again = phone.post('/', data=form).headers['location']
    assert phone.get(again).status_code == 200 and phone.post('/', data=form).headers['location'] == again
    assert len(site.store.participants()) == 1

def test_what_goes_along_with_an_id_stops_nobody(site):
    come_by(site, 'PROLIFIC_PID=abc&SESSION_ID=a%09b&STUDY_ID=' + 's'*201)
    assert site.store.platform_ids(site.store.secret).drop(columns='participant').to_dict('records') == [{'platform': 'abc'}]

def test_an_answer_off_the_grid_is_marked():
    site = Site('construct')
    token, form = site.come()
    r = site.client.post(f'/p/{token}/answer', data={**form, 'lam': '.55', 'moved_lam': '1', 'rt_ms': '900'})
    stage = re.search('<div[^>]*id="stage"[^>]*>', r.text)[0]
    assert r.status_code == 422 and 'aria-invalid="true"' in stage and 'aria-describedby="notice"' in stage
    assert 'aria-invalid' not in site.client.get(f'/p/{token}').text

def test_the_cookie_outlives_the_browser_and_is_secure_where_the_study_is(site):
    for url, secure in (('http://testserver', False), ('https://testserver', True)):
        said = TestClient(site.app, base_url=url).get('/').headers['set-cookie'].lower()
        assert ('; secure' in said) == secure and int(re.search('max-age=([0-9]+)', said)[1]) >= 30*24*3600 and 'httponly' in said

def test_the_cookie_is_secure_where_people_come_by_https():
    site = Site(secure=True, limits=Limits(per_token=(.001, 1))) # whatever the proxy in between says
    token, form = site.come('debrief')
    late = site.client.post(f'/p/{token}/debrief', data=form, headers={'cookie': f"hmix={site.client.cookies['hmix']}"})
    for r in (TestClient(site.app).get('/'), late): assert '; secure' in r.headers['set-cookie'].lower(), r.status_code
    assert late.status_code == 429

def test_the_key_of_the_first_form_is_short(site):
    form = hidden(site.client.get('/').text)
    assert [site.client.post('/', data={**form, 'key': o}).status_code for o in ('', 'x', 'k'*65, 'k'*60_000, 'ä'*9)] == [400]*5
    assert len(site.store.participants()) == 0 and not site.app.state.rooms.joined

def test_an_address_cannot_say_more_than_who_comes(site):
    victim, name = come_by(site, 'PROLIFIC_PID=victim&STUDY_ID=s'), lambda token: site.store.state(token).participant
    evil = [come_by(site, f'PROLIFIC_PID=evil{i}&{o}') for i, o in enumerate(('platform=victim', f'participant={name(victim)}', 'lam_h=.9', 'browser=x', 'sealed=x'))]
    assert victim not in evil and len(set(evil)) == 5
    form = hidden(site.client.get('/').text) | dict(PROLIFIC_PID='evil5', platform='victim', participant=name(victim), lam_h='.9')
    evil.append(site.client.post('/', data=form).headers['location'].rpartition('/')[2])
    ids = site.store.platform_ids(site.store.secret)
    assert set(ids.columns) == {'participant', 'platform', 'STUDY_ID'} and dict(zip(ids.participant, ids.platform)) == {
        name(victim): 'victim', **{name(o): f'evil{i}' for i, o in enumerate(evil)}}

def test_a_placeholder_is_nobody(site):
    from urllib.parse import quote
    who = [come_by(site, f'PROLIFIC_PID={quote(o)}') for o in ('{{%PROLIFIC_PID%}}', '{{%PROLIFIC_PID%}}', '${e://Field/pid}', '%PID%', '[ID]', '<id>')]
    assert len(set(who)) == 6 and len(site.store.platform_ids(site.store.secret)) == 0

def test_who_comes_is_found_in_a_long_or_broken_address(site):
    for query in ('&'.join(f'utm_{i}=x' for i in range(20)), 'utm=%ff', 'q=%00', 'utm=' + 'x'*5000):
        assert hidden(site.client.get(f'/?{query}&PROLIFIC_PID=late').text)['PROLIFIC_PID'] == 'late', query[:40]

def test_owner_page_needs_its_token(site):
    seen = []
    def view(spec, store, what='', base=''):
        seen.append(what)
        if what == 'table.csv': return b'a,b', 'text/csv', 'ta/b"le.csv'
        if what: raise ValueError('no such <file>')
        from fastcore.xml import Section
        return Section(base.rpartition('/')[0], id='owner')
    site = Site(owner=view)
    right = f'/owner/{site.app.state.owner_token}'
    assert site.client.get(right).status_code == 200 and "connect-src 'self'" in site.client.get(right).headers['content-security-policy']
    assert site.client.get(right + '/part').text.strip() == '<section id="owner">/owner</section>'
    r = site.client.get(right + '/table.csv')
    assert r.content == b'a,b' and r.headers['content-disposition'] == 'attachment; filename="ta_b_le.csv"'
    assert site.client.get(right + '/else').status_code == 404 and 'no such &lt;file&gt;' in site.client.get(right + '/else').text
    n = len(seen)
    for wrong in ('/owner/', '/owner/x', right + 'x', right[:-1], '/owner/ä', '/owner/x/table.csv'): assert site.client.get(wrong).status_code == 404
    assert len(seen) == n and site.client.post(right).status_code == 405

def test_many_windows_of_the_owner_count_once(monkeypatch):
    calls, now = [], [100.]
    def view(spec, store, what='', base=''):
        calls.append(what)
        from fastcore.xml import P
        return (b'a', 'text/csv', 'a.csv') if what else P(f'count {len(calls)}')
    site = Site(owner=view)
    monkeypatch.setattr(server.time, 'monotonic', lambda: now[0])
    url = f'/owner/{site.app.state.owner_token}'
    for _ in range(5): assert 'count 1<' in site.client.get(url).text and 'count 1<' in site.client.get(url + '/part').text
    now[0] += 3 # what a window waits before it asks again
    assert 'count 2<' in site.client.get(url + '/part').text
    for _ in range(2): site.client.get(url + '/table.csv') # what is taken home is always as of now
    assert calls == ['', '', 'table.csv', 'table.csv']

def test_who_begins_again_and_again_is_slowed_down():
    site = Site(limits=Limits(enrol=(.001, 2)))
    form = hidden(site.client.get('/').text)
    codes = [site.client.post('/', data={**form, 'key': f'key-number-{i}'}).status_code for i in range(4)]
    assert codes == [303, 303, 429, 429] and len(site.store.participants()) == 2
    assert site.client.get('/').status_code == 200 and site.client.get(f'/p/{site.store.enrol()}').status_code == 200

def test_a_right_answer_stays_on_the_server(site):
    token, _ = site.come('comprehension')
    html = site.client.get(f'/p/{token}').text
    assert 'checked' not in html and 'answer' not in html.replace(site.spec.text('comprehension.intro'), '').lower().split('<form')[1].split('</form')[0].replace('100 other people would answer', '').replace('expert would answer', '')
    form = hidden(html)
    wrong = {f'q{i}': str((q['answer']+1) % len(q['options'])) for i, q in enumerate(site.spec.comprehension)}
    assert site.client.post(f'/p/{token}/comprehension', data={**form, **wrong}).status_code == 303
    assert site.store.state(token).step == 'instructions' and site.spec.text('comprehension.wrong') in site.client.get(f'/p/{token}').text

def test_debrief_keeps_words_in_any_script(site):
    token, form = site.come('debrief')
    text = next(q['id'] for q in site.spec.debrief if q['kind'] == 'text')
    words = 'Grüße 猫 🐈 <b>\'"; DROP TABLE\nnew line'
    assert site.client.post(f'/p/{token}/debrief', data={**form, text: words}).headers['location'] == f'/p/{token}'
    assert words in site.store.debriefs().astype(str).to_string() or words in [v for d in site.store.events().data for v in d.values()]
    r = site.client.post(f'/p/{site.come("debrief")[0]}/debrief', data={text: 'x'})
    assert r.status_code == 403

# fuzz: the table of routes, with whatever a stranger may put into it

WORDS = st.sampled_from(['', '0', '1', '50', '100', '101', '-1', '0.5', '1e9', 'nan', 'inf', '-', '../../etc/passwd', '%00', '<script>', 'ä', '猫', 'x'*300,
                         "';--", '0.1', '0.30000000000000004', '3', 'true', 'None', '[]'])
NAMES = ('csrf', 'key', 'trial', 'mix', 'confidence', 'moved_mix', 'moved_confidence', 'lam', 'moved_lam', 'choice', 'first', 'first_prob', 'second',
         'second_prob', 'impossible', 'rt_ms', 'served', 'client_time', 'box0', 'box1', 'box2', 'q0', 'q1', 'q2', 'clear', 'hard', 'comments', 'other')
STEPS = ('consent', 'instructions', 'comprehension', 'answer', 'debrief')
TOKENS = st.sampled_from([*['mine']*16, 'theirs', 'theirs', 'x'*22, 'x', '..%2f..', '%ff%fe', ''])
SEND = st.tuples(st.sampled_from(['POST']*12 + ['GET', 'GET', 'PUT', 'HEAD', 'DELETE']), TOKENS, st.sampled_from(('', *STEPS*3, *['answer']*9, 'x')),
                 st.dictionaries(st.sampled_from(NAMES), st.lists(WORDS | st.text(max_size=12), min_size=1, max_size=2), max_size=4),
                 st.sampled_from([*['ours']*9, 'old', 'none', 'raw']), st.booleans())
ELSE = st.tuples(st.sampled_from(['GET', 'GET', 'GET', 'POST', 'HEAD', 'PATCH']), st.sampled_from(['/', '/media/', '/static/', '/static/x/', '/owner/', '/p/']),
                 st.text(max_size=12) | st.sampled_from(['elicit.css', '..%2f..%2fsetup.py', '%ff', '%00', 'x.png']), st.binary(max_size=40))

def lawful(spec, store):
    "Is each stored row one that the study allows, once per participant and trial?"
    rows = store.answers(current=False)
    assert not rows.duplicated(['participant', 'trial']).any() and not rows.duplicated(['participant', 'key']).any()
    known = {o['id'] for o in spec.stimuli}
    for r in rows.to_dict('records'):
        assert r['stimulus'] in known and 0 <= r['rt_s'] and (r['position'] >= 0)
        if spec.task == 'construct': assert round(r['lam_h'], 1) == r['lam_h'] and 0 <= r['lam_h'] <= 1
        if spec.task == 'coefficient': assert round(r['lam_h'], 2) == r['lam_h'] and round(r['confidence'], 2) == r['confidence'] # whole percents
        if spec.task == 'coefficient': assert 0 <= r['lam_h'] <= 1 and 0 <= r['confidence'] <= 1 and all(r['moved'].values())
        if spec.task in ('pairwise', 'select-shuffled'): assert r['lam_h'] in r['shown']
        if spec.task == 'categorical':
            q = r['second_prob'] if r['second'] in spec.classes else 0
            assert r['first'] in spec.classes and 0 < r['first_prob'] <= 1 and r['first_prob'] + q <= 1+1e-9 and not {r['first'], r['second']} & set(r['impossible'])
    return len(rows)

N_REQUESTS, PER_EXAMPLE = 10_000, 20

class Direct:
    "A client in the event loop of the application: no threads to wait for, so that 10,000 requests take little time."
    def __init__(self, app):
        self.loop = asyncio.new_event_loop()
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://testserver')
    def request(self, *args, **kw): return self.loop.run_until_complete(self.client.request(*args, **kw))
    def get(self, url): return self.request('GET', url)

async def at_once(f, *args): return f(*args)

def test_fuzz(monkeypatch):
    monkeypatch.setattr(server, 'run_in_threadpool', at_once)
    sites = [Site(t) for t in TEMPLATES]
    tally, stored = {}, []
    for site in sites: site.__dict__.update(client=Direct(site.app), old={}, mine='')
    good = dict(construct=dict(lam='0.3'), coefficient=GOOD, pairwise=dict(choice='1'), **{'select-shuffled': dict(choice='4')})

    def send(site, method, url, **kw):
        r = site.client.request(method, url, **kw)
        tally[r.status_code] = tally.get(r.status_code, 0) + 1
        assert r.status_code < 500, (method, url, kw, r.text)
        return r

    @settings(max_examples=N_REQUESTS//PER_EXAMPLE, deadline=None, suppress_health_check=list(HealthCheck), database=None,
              phases=[Phase.generate])
    @given(st.sampled_from(range(len(sites))), st.sampled_from(['consent', 'instructions', 'comprehension', 'trials', 'trials', 'trials', 'debrief']),
           st.lists(SEND, min_size=14, max_size=14), st.lists(ELSE, min_size=4, max_size=4))
    def fuzz(which, step, sends, elses):
        site = sites[which]
        token, form = site.come(step)
        theirs = site.mine or token
        for method, whose, path, data, ours, right in sends:
            to = {'mine': token, 'theirs': theirs}.get(whose, whose)
            given = {k: v for k, v in form.items() if k not in data} if ours == 'ours' else dict(site.old) if ours == 'old' else {}
            if right and site.spec.task in good: given |= good[site.spec.task]
            elif right: given |= dict(first=site.spec.classes[0], first_prob='60', second='-')
            url = f'/p/{to}' + (f'/{path}' if path else '')
            if ours == 'raw': send(site, method, url, content=str(data).encode('utf-16'), headers={'content-type': 'application/x-www-form-urlencoded'})
            elif method == 'POST':
                r = send(site, method, url, data={**given, **{k: [o.encode('utf-8', 'ignore').decode() for o in v] for k, v in data.items()}})
                if r.status_code == 303: form = hidden(send(site, 'GET', f'/p/{token}').text) # on, as somebody would who takes part
            else: send(site, method, url)
        for method, base, rest, body in elses: send(site, method, base + quote(rest), **(dict(content=body) if method == 'POST' else {}))
        for _ in range(2): form = hidden(send(site, 'GET', f'/p/{token}').text) # whatever happened, the page is there
        site.mine, site.old = token, form

    fuzz()
    for site in sites:
        stored.append(lawful(site.spec, site.store))
        site.client.loop.close()
    assert sum(tally.values()) >= N_REQUESTS and sum(stored) > 100 and {200, 303, 403, 404, 405, 422} <= set(tally), (tally, stored)

def quote(text):
    from urllib.parse import quote
    return quote(text.encode('utf-8', 'surrogatepass'), safe='/%')

# in the background

def test_serve_in_the_background(tmp_path):
    spec = small()
    with serve(spec, str(tmp_path/'a.db'), quiet=True) as handle:
        assert handle.url.startswith('http://127.0.0.1:') and httpx.get(handle.url).status_code == 200
        assert handle.owner_url.rpartition('/')[2] not in repr(handle) + handle._repr_html_()
        assert httpx.get(handle.owner_url).status_code == 200
        assert len(handle.table()) == 0
        token = handle.store.enrol()
        walk(handle.store, token)
        with httpx.Client() as client:
            form = hidden(client.get(f'{handle.url}p/{token}').text)
            assert client.post(f'{handle.url}p/{token}/answer', data={**form, **GOOD}).status_code == 303
        assert len(handle.table()) == 1 and handle.counts() == dict(started=1, finished=0, dropped=0, answers=1) and '<td>1</td>' in handle._repr_html_()
        with pytest.raises(ValueError, match='port'): serve(spec, str(tmp_path/'b.db'), port=handle.port)
        url, port = handle.url, handle.port
    with pytest.raises(httpx.ConnectError): httpx.get(url)
    assert 'stopped' in repr(handle)
    with serve(spec, str(tmp_path/'a.db'), port=port, quiet=True) as again: # the answers, and the forms that are still open
        assert len(again.table()) == 1

def test_the_owner_link_is_printed_once(tmp_path, capsys):
    with serve(small(), ':memory:') as handle: pass
    assert capsys.readouterr().out.count(handle.owner_url) == 1

def test_loopback_unless_asked():
    with serve(small(), ':memory:', quiet=True) as handle: assert handle.sock.getsockname()[0] == '127.0.0.1'

def test_preview_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = preview(small(), 'trials')
    assert '<iframe' in shown._repr_html_()
    r = httpx.get(shown.src)
    assert r.status_code == 200 and 'frame-ancestors' not in r.headers['content-security-policy'] and 'x-frame-options' not in r.headers
    form = {**hidden(r.text), **GOOD} # a frame of another site gets no cookie, and needs none
    assert httpx.post(shown.src + '/answer', data={**form, 'csrf': 'x'*43}).status_code == 403
    assert httpx.post(shown.src + '/answer', data=form).status_code == 303 and len(shown.table()) == 1
    other = small('construct').preview('debrief')
    with pytest.raises(httpx.ConnectError): httpx.get(shown.src) # the next one ends it
    assert httpx.get(other.src).status_code == 200
    other.stop()
    assert not list(tmp_path.iterdir())

def test_raw_sockets_meet_no_error_page():
    with serve(small(), ':memory:', quiet=True) as handle:
        for raw in (b'GET / HTTP/1.1\r\n\r\n', b'\x00\xff\r\n\r\n', b'GET /%ff%fe HTTP/1.1\r\nHost: \xff\r\n\r\n', b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n',
                    b'GET /p/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n', b'GET / HTTP/1.1\r\nHost: x\r\nCookie: hmix=\xff; =; ;;\r\n\r\n',
                    b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nZZ\r\n'):
            with socket.create_connection(('127.0.0.1', handle.port), timeout=5) as s:
                s.sendall(raw)
                s.shutdown(socket.SHUT_WR)
                status = s.recv(4096).split(b' ')[1:2]
            assert not status or status[0][:1] != b'5', raw
        assert httpx.get(handle.url).status_code == 200

@pytest.mark.parametrize('left', ['/blends', ''], ids=['the proxy passes the path on', 'the proxy takes the path away'])
def test_under_a_path_of_a_proxy(left):
    site = Site(root='/blends')
    page = site.client.get(left + '/')
    assert page.status_code == 200 and 'action="/blends/' in page.text
    for address in re.findall(r'(?:href|src)="(/blends[^"]+)"', page.text): # styles, scripts, the icon
        assert site.client.get(left + address.removeprefix('/blends')).status_code == 200, address
    token = site.store.enrol()
    walk(site.store, token, 'trials')
    page = site.client.get(f'{left}/p/{token}')
    sent = {'cookie': page.headers['set-cookie'].split(';')[0]} # as by a browser, which sees the path
    assert site.client.post(f'{left}/p/{token}/answer', data=hidden(page.text) | GOOD, headers=sent).headers['location'].startswith('/blends/p/')
    assert site.client.get('/blendsome').status_code == 404
