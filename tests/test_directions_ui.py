"The desk where arrows are drawn, in a real browser: hands, keys, a phone, and what happens when a page or a server dies."
import json, shutil, signal, socket, subprocess, sys, time
from concurrent.futures import Future, TimeoutError as FutureTimeout
from contextlib import contextmanager
from pathlib import Path
import httpx, pandas as pd, pytest, torch
from hmix_nb.directions.frames import unpack
from hmix_nb.directions.space import Log, Session, parse_log, replay, resume
from hmix_nb.directions.ui import Desk, DirectionWidget, serve

def made(path=None, **kw):
    session = Session('ann', path)
    session.do('load', **(dict(dataset='moons', n=24, seed=1, biased=True) | kw))
    return session

# ---- without a browser --------------------------------------------------------------------------------------------------------------
def test_training_goes_on_while_frames_are_painted():
    with Desk(made(), pace=0) as desk:
        desk.act(dict(do='play'))
        n, epochs = 0, []
        while len(epochs) < 6:
            n, frame = desk.painter.after(n, 20)
            epochs.append(unpack(frame)[0]['epoch'])
        assert epochs == sorted(epochs) and epochs[-1] > epochs[0] and unpack(frame)[1].shape == (1, 100, 100)

def test_what_the_page_gets_holds_no_held_out_point_before_the_end():
    session = made()
    with Desk(session) as desk:
        desk.act(dict(do='step'))
        sent = [json.dumps(desk.act(dict(do=o))) for o in ('state', 'save', 'export', 'run_save')] + [str(unpack(desk.painter.after(0, 20)[1])[0])]
        session.do('commit') # only so that the split may be had
        for x, _ in session.held_out_split().x[:50]: assert not any(f'{x:.6f}'[:8] in o for o in sent)
        assert all('"held_out": null' in o for o in sent[:4]) and all('scored' not in o for o in sent)

@pytest.mark.parametrize('message, words', [
    (dict(do='play', speed=9), "play: found an argument 'speed'; allowed: none"), (dict(do='reset', who=1), "reset: found an argument 'who'; allowed: what"),
    (dict(do='show', what='map'), 'show: on is not given'), (dict(do='set', speed=9), 'speed'), (dict(do='load'), 'load: text is not given'),
    (dict(do='load', text=5), 'text: found int'), (dict(do='arrow_commit', point=1, v=[1e200, 1e200]), 'below 1e+06'),
    (dict(do='arrow_commit', point=1, v='x'), "vector: found 'x'; allowed are 2 finite numbers"), (dict(do='compare', runs=3), 'runs: found 3; none is kept yet'),
    (dict(do='compare', runs=[3]), 'runs: found [3]; none is kept yet'), (dict(do='set', alpha='.5'), "alpha: found '.5'; allowed is a finite number in [0, 1]"),
    (dict(do='set', pace=[5]), 'pace: found [5]'), (dict(do='arrow_commit', point=1, v=[1, 0], omega='1'), "omega: found '1'"),
    (dict(do=['play']), 'do: ['), (dict(do='label', point=1, y=json.loads('['*200 + ']'*200)), '50 deep'), (dict(do='play', **{'x'*9999: 1}), 'play: found')])
def test_an_argument_that_does_not_belong_is_named(message, words):
    with Desk(made()) as desk:
        before, said = desk.act(dict(do='state')), desk.act(message)
        assert not said['ok'] and words in said['say'] and '()' not in said['say'] and said['state'] == before['state']

def test_a_run_is_kept_whether_or_not_it_was_painted(monkeypatch):
    with Desk(made()) as desk:
        monkeypatch.setattr(desk.painter, 'show', lambda *_: None)
        assert 'Nothing to keep' in desk.act(dict(do='run_save'))['say'] and not desk.session.runs
        for n in (1, 2):
            desk.act(dict(do='step'))
            run = desk.act(dict(do='run_save'))['state']['runs'][-1]
            assert run['curve'][-1] == [n, run['last']] and 0 <= run['last'] <= 1 and len(desk.session.runs) == n

def test_a_loaded_session_goes_on_in_a_file_of_its_own(tmp_path):
    with Desk(made(tmp_path/'a.jsonl')) as desk:
        desk.act(dict(do='arrow_commit', point=2, v=[.5, .2]))
        saved = desk.act(dict(do='save'))['file']['text']
        desk.act(dict(do='clear_all'))
        assert desk.act(dict(do='load', text=saved))['ok'] and len(desk.session.arrows) == 1
        desk.act(dict(do='arrow_commit', point=3, v=[.5, .2]))
        assert replay(tmp_path/'a-1.jsonl') == desk.session and len(replay(tmp_path/'a.jsonl').arrows) == 0
        before = desk.act(dict(do='state'))['state']
        for bad in ('', '{"event": "session"}', saved.replace('moons', 'suns'), 'x\ny\n'):
            said = desk.act(dict(do='load', text=bad))
            assert not said['ok'] and said['say'] and said['state'] == before

def test_sessions_of_other_sizes_are_loaded_while_nets_train(caplog, monkeypatch):
    texts = []
    for n in (12, 60):
        other = made(n=n)
        for i in range(12): other.do('arrow_commit', point=i, vector=(.5, .1*i))
        texts.append(''.join(json.dumps(e) + '\n' for e in other.events))
    with Desk(made(), pace=0) as desk:
        ask = desk.trainer.ask
        monkeypatch.setattr(desk.trainer, 'ask', lambda act: time.sleep(.05) or ask(act)) # epochs go on meanwhile
        for i in range(4):
            desk.act(dict(do='play'))
            assert desk.act(dict(do='load', text=texts[i % 2]))['ok'] and desk.trainer.trouble is None and desk.trainer.epoch == 0
    assert not caplog.records

def test_a_huge_log_is_loaded_and_goes_on(tmp_path):
    other = made(n=100)
    select = [dict(event='select', t_ms=i, point=i % 100) for i in range(20_000)]
    for i in range(400): other.do('arrow_commit', point=i % 100, vector=(.5, .001*i))
    text = ''.join(json.dumps(e) + '\n' for e in other.events + select)
    with Desk(made(tmp_path/'log')) as desk:
        said = desk.act(dict(do='load', text=text))
        assert said['say'] == 'Loaded: 400 arrows.' and len(Log.read(tmp_path/'log-1')) == len(other.events) + 20_000
        assert desk.act(dict(do='undo'))['ok'] and replay(tmp_path/'log-1') == desk.session and len(desk.session.arrows) == 399

def test_a_server_killed_hard_has_lost_nothing_that_it_acknowledged(tmp_path):
    code = ("import sys, time; from hmix_nb.directions.space import Session; from hmix_nb.directions.ui import serve\n"
            "s = Session('ann', sys.argv[1]); s.do('load', dataset='xor', n=20, seed=0); h = serve(s, pace=0, quiet=True); print(h.url, flush=True); time.sleep(60)")
    p = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'log')], stdout=subprocess.PIPE, text=True)
    try:
        url = p.stdout.readline().strip()
        with httpx.Client(base_url=url + '/') as client:
            page = client.get(url)
            csrf = page.text.split('data-csrf="')[1].split('"')[0]
            ask = lambda **m: client.post(url + '/do', data=dict(csrf=csrf, say=json.dumps(m)), timeout=30).json()
            ask(do='play')
            for i in range(5): state = ask(do='arrow_commit', point=i, v=[.4, .1*i])['state']
            ask(do='arrow_start', point=7)
    finally:
        p.send_signal(signal.SIGKILL)
        p.wait(10)
    again = resume(tmp_path/'log')
    assert [list(a.d) for a in again.arrows] == [a['d'] for a in state['arrows']] and replay(Log.read(tmp_path/'log')) == again
    again.do('undo')
    assert len(replay(tmp_path/'log').arrows) == 4

def test_a_label_that_the_arrow_aims_at_is_said():
    with Desk(made()) as desk:
        y = int(desk.session.labels[1])
        desk.act(dict(do='arrow_commit', point=1, v=[.5, .2]))
        assert desk.act(dict(do='label', point=1, y=y))['say'] == 'Label noted.'
        said = desk.act(dict(do='label', point=1, y=1-y))
        assert said['ok'] and 'aims at the class that the point has now: it is kept, and has no effect' in said['say'] and len(said['state']['arrows']) == 1

def test_a_loaded_log_of_another_hand_does_not_stop_the_desk():
    with Desk(made()) as desk:
        for curve in ({}, dict(curve=None), dict(curve=[])):
            text = desk.act(dict(do='save'))['file']['text'] + json.dumps(dict(event='run', t_ms=1, id=0, name=5) | curve) + '\n'
            assert desk.act(dict(do='load', text=text))['ok'] and desk.act(dict(do='state'))['state']['runs'] == []
        before = desk.act(dict(do='state'))['state']
        for bad in (dict(event='run', name='a', curve='x'), dict(event='run', name='a', curve=[[1]]), dict(event='label', point=1, y=0, ms='x'),
                    dict(event='load', dataset='moons', n=6000)):
            said = desk.act(dict(do='load', text=text + json.dumps(bad) + '\n'))
            assert not said['ok'] and said['say'] and said['state'] == before, bad
        assert desk.act(dict(do='export'))['ok'] and desk.act(dict(do='arrow_commit', point=1, v=[.5, .2]))['ok']

def test_a_full_disk_is_said(tmp_path, monkeypatch):
    with Desk(made(tmp_path/'log')) as desk:
        def full(fd): raise OSError(28, 'No space left on device')
        monkeypatch.setattr('os.fsync', full)
        said = desk.act(dict(do='arrow_commit', point=1, v=[.5, .2]))
        assert not said['ok'] and said['say'] == 'This was not kept: No space left on device.' and not said['state']['arrows']
        monkeypatch.undo()
        assert desk.act(dict(do='arrow_commit', point=1, v=[.5, .2]))['ok'] and replay(tmp_path/'log') == desk.session

def test_a_training_that_does_not_answer_is_no_loss(tmp_path, monkeypatch):
    with Desk(made(tmp_path/'log')) as desk:
        monkeypatch.setattr(Future, 'result', lambda self, timeout: (_ for _ in ()).throw(FutureTimeout()))
        said = desk.act(dict(do='select', point=1))
        assert said['ok'] # asks nobody
        said = desk.act(dict(do='label', point=1, y=0)) # asks before it is noted
        assert not said['ok'] and said['say'] == 'Training did not answer in time; what you see here is what is kept.' and not desk.session.given
        said = desk.act(dict(do='clear_point', point=1)) # noted, then shown
        assert not said['ok'] and 'what you see here is what is kept' in said['say'] and desk.session.events[-1]['event'] == 'clear_point'
        monkeypatch.undo()
        assert desk.act(dict(do='state'))['state'] == said['state'] and replay(tmp_path/'log') == desk.session

def test_a_closed_desk_says_so_at_once_and_keeps_nothing(tmp_path):
    with Desk(made(tmp_path/'log')) as desk: desk.act(dict(do='arrow_commit', point=1, v=[.5, .2]))
    n = len(desk.session.events)
    for do in ('undo', 'play', 'pause', 'step', 'reset', 'commit'):
        said = desk.act(dict(do=do))
        assert not said['ok'] and said['say'].startswith('desk: it is closed') and len(desk.session.events) == n, do
    with pytest.raises(ValueError, match='desk: it is closed'): desk.trainer.pause() # nobody is there to answer
    assert desk.act(dict(do='save'))['file'] and desk.act(dict(do='state'))['ok']

def test_a_training_that_fails_is_said_and_can_be_reset():
    with Desk(made(), pace=0) as desk:
        with torch.no_grad(): desk.trainer.nets.w1.fill_(float('nan'))
        assert not desk.act(dict(do='step'))['ok']
        desk.act(dict(do='play'))
        n, head = 0, dict(trouble=None)
        while not head['trouble']: # the first frames are of before
            n, frame = desk.painter.after(n, 20)
            head = unpack(frame)[0]
        assert not head['running'] and head['trouble'].startswith('loss: found nan at epoch 0')
        assert desk.act(dict(do='reset'))['ok'] and desk.act(dict(do='step'))['ok'] and desk.trainer.epoch == 1 and desk.trainer.trouble is None

def test_nets_that_are_no_numbers_are_not_committed():
    with Desk(made(), pace=0) as desk:
        with torch.no_grad(): desk.trainer.nets.w1[0, 0].fill_(float('nan'))
        said = desk.act(dict(do='commit'))
        assert not said['ok'] and 'reset the model first' in said['say'] and not desk.session.committed
        assert desk.act(dict(do='reset'))['ok'] and desk.act(dict(do='commit'))['ok'] and desk.session.held_out['accuracy'] > 0

@pytest.mark.parametrize('how', [dict(gamma=1e6), dict(loss='hinge', gamma=1e6, alpha=1), dict(loss='tip', alpha=1), dict(loss='sign'), dict(loss='cosine', alpha=1)])
def test_training_stays_finite_under_extreme_arrows(how):
    session = made()
    for v in ([1, 0], [-1, 0], [9e5, 9e5], [.1, 0]): session.do('arrow_commit', point=1, vector=v) # opposite, far away, just long enough
    session.do('arrow_commit', point=2, d=[1e-8, 0])
    session.do('arrow_commit', point=3, vector=[1, 0], omega=0)
    session.do('set', **how)
    with Desk(session, pace=0) as desk:
        desk.trainer.run_epochs(30)
        assert all(p.isfinite().all() for p in desk.trainer.nets.parameters()) and len(desk.trainer.ids) == 5
        assert desk.painter.after(0, 20)[1] and 0 <= desk.trainer.practice(desk.trainer.nets) <= 1

def test_a_cell_run_again_has_one_desk(tmp_path):
    first = DirectionWidget(made(tmp_path/'log'))
    other = DirectionWidget(made())
    again = DirectionWidget(resume(tmp_path/'log'))
    try:
        assert not first.desk.trainer.thread.is_alive() and other.desk.trainer.thread.is_alive()
        assert again.desk.act(dict(do='arrow_commit', point=1, v=[.5, .2]))['ok'] and replay(tmp_path/'log') == again.session
        same = DirectionWidget(again.session)
        assert not again.desk.trainer.thread.is_alive()
        same.close()
    finally:
        for w in (first, other, again): w.close()

def test_what_strangers_send_to_the_server_ends_in_a_refusal():
    with serve(made(), quiet=True) as handle, httpx.Client(timeout=30) as client:
        page = client.get(handle.url)
        csrf, at = page.text.split('data-csrf="')[1].split('"')[0], handle.url + '/do'
        post = lambda say, **kw: client.post(at, data=dict(csrf=csrf, say=say), **kw)
        assert post('{"do": "state"}', headers=dict(origin=handle.url.split('/owner')[0])).json()['ok']
        for say, status in (('[' * 100_000, 400), ('{"do": "select", "point": ' + '9'*5000 + '}', 400), ('1', 400), ('', 400), ('{"do": "load"' + ' '*21_000_000, 413)):
            assert post(say).status_code == status, say[:30]
        for say in ('{"do": "arrow_commit", "point": 1, "v": [1e999, 0]}', '{"do": "arrow_commit", "point": 1, "v": [NaN, 0]}', '{"do": "label", "point": 1e99, "y": 0}',
                    '{"do": "load", "text": "' + '['*50_000 + '\\n"}', '{"do": "skip", "point": ' + '['*300 + ']'*300 + '}'):
            assert post(say).json()['ok'] is False
        for origin in ('http://[', 'null', '//', 'http://evil.example'): assert post('{"do": "state"}', headers=dict(origin=origin)).status_code == 403
        for after in ('-1', 'x', '9'*400, '%00', '1e9', '²'): assert client.get(f'{handle.url}/frame?after={after}').status_code in (200, 204)
        host, port = handle.url.split('/')[2].split(':')
        for path in (handle.url.split(port, 1)[1], handle.url.split(port, 1)[1] + '/frame'): # nobody gets a websocket
            with socket.create_connection((host, int(port)), timeout=10) as c:
                c.sendall(f'GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n'
                          'Sec-WebSocket-Version: 13\r\n\r\n'.encode())
                assert b'101' not in c.recv(200).split(b'\r\n')[0]
        assert {e['event'] for e in handle.session.events} <= {'session', 'load', 'trained'} # nothing of it is in the log

# ---- in a browser -------------------------------------------------------------------------------------------------------------------
CHROMIUM = next((p for o in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(o))), None)
PHONE = dict(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True)

@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    if not CHROMIUM: pytest.skip('no chromium on this machine: the page is not driven in a browser')
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()

@contextmanager
def desk_page(browser, path=None, data={}, trainer={}, **kw):
    "A page at a desk; it must not meet an error, nor load from elsewhere."
    with serve(made(path, **data), quiet=True, **trainer) as handle:
        context = browser.new_context(**{**dict(viewport=dict(width=1280, height=860)), **kw})
        page, errors, hosts = context.new_page(), [], set()
        page.on('console', lambda o: errors.append(o.text) if o.type in ('error', 'warning') else None)
        page.on('pageerror', lambda e: errors.append(str(e)))
        page.on('request', lambda r: hosts.add(r.url.split('/')[2]) if r.url.startswith('http') else None)
        come(page, handle)
        yield page, handle
        assert not errors and len(hosts) == 1
        context.close()

def come(page, handle):
    page.goto(handle.url)
    page.wait_for_function("() => document.querySelector('[data-directions]')?.desk?.state && document.querySelector('[data-directions]').desk.frame")

def settled(page): page.evaluate("() => document.querySelector('[data-directions]').desk.waiting")
def place(page, point): # where a point is on the screen
    return page.evaluate("""i => { const d = document.querySelector('[data-directions]').desk, b = d.canvas.getBoundingClientRect(), q = d.px(d.state.points[i]);
                                   return [b.x + q[0], b.y + q[1]]; }""", point)

def alone(session): # points with no other near, so that the press means them
    x = session.points.x
    far = [min(((x[i] - x[j])**2).sum() for j in range(len(x)) if j != i) for i in range(len(x))]
    return sorted(range(len(x)), key=lambda i: -far[i])

def drag(page, point, dx, dy, release=True):
    page.evaluate("document.querySelector('.hd-map').scrollIntoView({block: 'center'})")
    x, y = place(page, point)
    page.mouse.move(x, y)
    page.mouse.down()
    for k in range(1, 6): page.mouse.move(x + dx*k/5, y + dy*k/5)
    if release: page.mouse.up()
    settled(page)

def said(page): return page.locator('.hd-say').inner_text()

def test_draw_edit_undo_delete_replay(browser, tmp_path):
    with desk_page(browser, tmp_path/'log') as (page, handle):
        s, (a, b, *_) = handle.session, alone(handle.session)
        drag(page, a, 70, -40)
        one, = s.arrows
        assert one.point == a and one.ms > 0 and one.model and abs(one.d[1]/one.d[0] - 40/70) < .05
        drag(page, b, -60, 10)
        assert [o.point for o in s.arrows] == [a, b]
        first = s.arrows[1].d
        drag(page, b, 4, 4) # a slip of the hand
        assert len(s.arrows) == 2 and 'Too short' in said(page) and s.events[-1]['event'] == 'arrow_cancel'
        page.locator('.hd-list button', has_text='Edit').click()
        page.keyboard.press('ArrowLeft')
        page.keyboard.press('Enter')
        settled(page)
        assert len(s.arrows) == 2 and s.arrows[1].d != first and [e['event'] for e in s.events].count('arrow_edit') == 1
        page.get_by_role('button', name='Undo').click()
        settled(page)
        assert s.arrows[1].d == first and s.can_redo
        page.locator('.hd-list button', has_text='Delete').click()
        settled(page)
        assert [o.point for o in s.arrows] == [a]
        page.get_by_role('button', name='Undo').click()
        page.get_by_role('button', name='Redo').click()
        page.get_by_role('button', name='I don’t know').click()
        page.locator('.hd-class').nth(1 - int(s.labels[b])).click()
        settled(page)
        assert len(s.skipped) == 1 and len(s.given) == 1 and s.given[0].was is not None and s.given[0].ms > 0
        for o in ('uncertainty', 'gradient', 'violated'): page.locator('.hd-tick', has_text=o).locator('input').check()
        page.get_by_role('button', name='Step').click()
        page.get_by_role('button', name='Keep this run').click()
        page.get_by_role('button', name='Step').click()
        page.get_by_role('button', name='Keep this run').click()
        page.get_by_role('button', name='Clear all arrows').click()
        settled(page)
        assert set(s.visible) == {'map', 'uncertainty', 'field', 'violated'} and not s.arrows and replay(tmp_path/'log') == s
        assert page.locator('[aria-label="Saved runs"] input').count() == len(s.runs) == 2
        page.get_by_role('button', name='Finish').click()
        page.locator('.hd-armed').click()
        settled(page)
        assert s.committed and f"{100*s.held_out['accuracy']:.1f} %" in page.locator('.hd-side').inner_text()
    assert replay(tmp_path/'log') == s

def button(page, name, again=None): # and what it asks, where it does
    page.get_by_role('button', name=name, exact=True).click()
    if again: page.get_by_role('button', name=again, exact=True).click()
    settled(page)

def test_a_saved_session_is_loaded_in_the_page(browser, tmp_path):
    other = made(data := tmp_path/'other.jsonl', dataset='xor')
    for i in range(3): other.do('arrow_commit', point=i, vector=(.5, .1*i))
    other.do('run', name='kept', curve=[[0, .5], [10, .9]])
    with desk_page(browser, tmp_path/'log') as (page, handle):
        drag(page, alone(handle.session)[0], 60, 30)
        page.locator('input[type=file]').set_input_files(data)
        page.wait_for_function("() => document.querySelector('[data-directions]').desk.state.arrows.length === 3")
        assert said(page) == 'Loaded: 3 arrows.' and handle.session == other and page.locator('[aria-label="Saved runs"]').inner_text().endswith('90.0 %')
        drag(page, alone(handle.session)[0], 60, 30)
        assert len(handle.session.arrows) == 4 and replay(tmp_path/'log-1') == handle.session and len(replay(tmp_path/'log').arrows) == 1
        for name, read in (('Save', lambda o: replay(parse_log(o.read_bytes())[0]).arrows == handle.session.arrows),
                           ('Export table', lambda o: len(pd.read_csv(o)) == len(handle.session.events))):
            with page.expect_download() as got: button(page, name)
            assert read(Path(got.value.path())), name
        (tmp_path/'bad.jsonl').write_text('{"event": "session"\n{"event": "load"}\n')
        page.locator('input[type=file]').set_input_files(tmp_path/'bad.jsonl')
        page.wait_for_function("() => document.querySelector('.hd-say').classList.contains('hd-bad')")
        assert 'line 1 is no event' in said(page) and len(handle.session.arrows) == 4

def test_target_and_confidence_where_there_are_three_classes(browser):
    with desk_page(browser, data=dict(dataset='blobs', n_classes=3, biased=False)) as (page, handle):
        s, (a, b, *_) = handle.session, alone(handle.session)
        menu, y = page.get_by_label('Class that should take over'), int(s.labels[a])
        page.locator('.hd-row select').select_option(str(a))
        settled(page)
        assert menu.locator('option:disabled').get_attribute('value') == str(y)
        for k in (1, 2):
            page.mouse.click(*place(page, a)) # the point, and no longer the arrow that was drawn last
            menu.select_option(str((y+k) % 3))
            drag(page, a, 60, -20*k)
            assert s.arrows[-1].target == (y+k) % 3 and s.arrows[-1].y == y
        menu.select_option(str((y+1) % 3)) # of the arrow that is chosen: the last one
        settled(page)
        assert [o.target for o in s.arrows] == [(y+1) % 3]*2 and s.events[-1]['event'] == 'arrow_target'
        page.locator('.hd-map').focus()
        page.keyboard.press('t') # never the point's own class
        settled(page)
        assert s.arrows[-1].target == (y+2) % 3
        page.get_by_label('Confidence').fill('35')
        settled(page)
        assert [o.omega for o in s.arrows] == [1, .35]
        page.locator('.hd-class').nth((y+2) % 3).click()
        settled(page)
        assert 'no effect' in said(page) and '2 arrows, 2 without effect' in page.locator('.hd-legend').inner_text()
        assert page.locator('.hd-list li', has_text='no effect').count() == 2 and s.active == ()
        drag(page, b, 60, 20)
        button(page, 'Step')
        page.wait_for_function("() => document.querySelector('[data-directions]').desk.frame.head.epoch === 1")
        assert ' · the arrow ' in page.locator('.hd-facts').first.inner_text()

def test_resets_and_the_controls_of_training(browser):
    with desk_page(browser) as (page, handle):
        s, t, a = handle.session, handle.desk.trainer, alone(handle.session)[0]
        drag(page, a, 60, 30)
        page.locator('.hd-class').nth(1-int(s.labels[a])).click()
        for label, value in (('Loss of the arrows', 'tip'), ('Speed', '0')): page.get_by_label(label).select_option(value)
        for label, value in (('α, weight of the arrows', '0.75'), ('γ, slope that is asked for', '5.5')): page.get_by_label(label).fill(value)
        settled(page)
        assert s.settings == dict(loss='tip', alpha=.75, gamma=5.5) and t.pace == 0
        page.get_by_label('Speed').select_option('20')
        button(page, 'Step')
        assert t.epoch == 1
        button(page, 'Reset model')
        assert t.epoch == 1 # asked first
        button(page, 'Forget what was learned?')
        assert (t.epoch, len(s.arrows), len(s.given)) == (0, 1, 1) and 'as in the beginning' in said(page)
        button(page, 'Reset data', 'Remove all labels and arrows of yours?')
        assert (len(s.arrows), len(s.given), s.can_undo) == (0, 0, False) and page.locator('.hd-legend').inner_text().endswith('0 arrows')
        assert s.settings['loss'] == 'tip' and page.get_by_label('Loss of the arrows').input_value() == 'tip'

def test_runs_are_compared_by_their_ticks(browser):
    with desk_page(browser) as (page, handle):
        for _ in range(2):
            button(page, 'Step')
            button(page, 'Step')
            page.wait_for_function("e => document.querySelector('[data-directions]').desk.frame.head.epoch === e", arg=handle.desk.trainer.epoch)
            button(page, 'Keep this run')
        ticks = page.locator('[aria-label="Saved runs"] input')
        ticks.nth(0).uncheck()
        settled(page)
        assert [r['shown'] for r in handle.session.runs] == [False, True] and page.locator('.hd-chart').get_attribute('aria-label').count(';') == 1
        come(page, handle)
        assert [ticks.nth(i).is_checked() for i in range(2)] == [False, True]
        ticks.nth(1).uncheck()
        ticks.nth(0).check()
        settled(page)
        assert [r['shown'] for r in handle.session.runs] == [True, False]

def test_a_page_killed_in_mid_drag_loses_nothing_committed(browser, tmp_path):
    with desk_page(browser, tmp_path/'log') as (page, handle):
        a, b, *_ = alone(handle.session)
        drag(page, a, 60, 30)
        drag(page, b, 60, 30, release=False)
        assert [e['event'] for e in handle.session.events][-1] == 'arrow_start'
        come(page, handle)
        assert page.evaluate("document.querySelector('[data-directions]').desk.state.arrows.length") == 1
        drag(page, b, 60, 30)
        assert [o.point for o in handle.session.arrows] == [a, b] and replay(tmp_path/'log') == handle.session

def test_keyboard_alone(browser):
    with desk_page(browser, data=dict(dataset='blobs', n_classes=3, biased=False)) as (page, handle):
        s = handle.session
        for _ in range(5):
            page.keyboard.press('Tab')
            if page.evaluate("document.activeElement.matches('.hd-map')"): break
        press = lambda *keys: [page.keyboard.press(k) for k in keys] and settled(page)
        press('n', 'n')
        assert s.selected == 1 and 'Point 2 of 24' in said(page)
        press('ArrowRight', 'ArrowLeft', 'ArrowLeft', 'ArrowUp', 'ArrowUp', 'Enter')
        assert len(s.arrows) == 1 and s.arrows[0].d[1] == pytest.approx(.5, abs=1e-6) # two turns of 15 degrees; the first key only begins
        press('ArrowUp', 'Escape')
        assert len(s.arrows) == 1 and s.events[-1]['event'] == 'arrow_cancel'
        press('a', 'e', 'Shift+ArrowLeft', 'Enter', 'd', 'u', 'r', str((int(s.labels[1])+1) % 3))
        assert len(s.skipped) == 1 and len(s.given) == 1 and [e['event'] for e in s.events].count('arrow_edit') == 1
        press('a', 'Delete', 's')
        assert not s.arrows and s.epoch == 1
        press('Space')
        page.wait_for_function("() => document.querySelector('.hd-bar button').textContent === 'Pause'")
        press('Space')

def test_on_a_phone_by_touch(browser):
    with desk_page(browser, **PHONE) as (page, handle):
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
        i, cdp = alone(handle.session)[0], page.context.new_cdp_session(page)
        page.evaluate("document.querySelector('.hd-map').scrollIntoView()")
        x, y = place(page, i)
        send = lambda kind, x=0, y=0: cdp.send('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[] if kind == 'touchEnd' else [dict(x=x, y=y)]))
        send('touchStart', x, y)
        for k in range(1, 7): send('touchMove', x + (10 if x < 200 else -10)*k, y + 5*k)
        send('touchEnd')
        page.wait_for_timeout(100)
        settled(page)
        assert [a.point for a in handle.session.arrows] == [i]

def test_frames_and_epochs_go_on_together(browser):
    with desk_page(browser, trainer=dict(pace=0)) as (page, handle):
        page.get_by_role('button', name='Play').click()
        count = lambda: page.evaluate("document.querySelector('[data-directions]').desk.drawn")
        drawn, epoch = count(), handle.desk.trainer.epoch
        for _ in range(300): # frames come at the speed of the machine
            page.wait_for_timeout(100)
            if count() > drawn + 15: break
        assert count() > drawn + 15 and handle.desk.trainer.epoch > epoch + 20

@pytest.mark.parametrize('look', [{}, dict(color_scheme='dark'), PHONE], ids=['light', 'dark', 'phone'])
def test_axe_finds_nothing_serious(browser, look):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe-playwright-python is not installed').Axe()
    with desk_page(browser, **look) as (page, handle):
        handle.desk.act(dict(do='arrow_commit', point=1, v=[.5, .5]))
        page.locator('.hd-row select').select_option('1')
        page.locator('button', has_text='Keep this run').click()
        settled(page)
        bad = [(o['id'], o['nodes'][0]['html'][:200]) for o in axe.run(page).response['violations'] if o['impact'] in ('serious', 'critical')]
        assert not bad
