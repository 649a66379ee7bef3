"The desk where arrows are drawn, in a real browser: hands, keys, a phone, and what happens when a page or a server dies."
import json, shutil, signal, subprocess, sys
from contextlib import contextmanager
import httpx, pytest
from hmix_nb.directions.frames import unpack
from hmix_nb.directions.space import Log, Session, replay, resume
from hmix_nb.directions.ui import Desk, serve

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
    (dict(do='load', text=5), 'text: found int'), (dict(do='arrow_commit', point=1, v=[1e200, 1e200]), 'below 1e100')])
def test_an_argument_that_does_not_belong_is_named(message, words):
    with Desk(made()) as desk:
        before, said = desk.act(dict(do='state')), desk.act(message)
        assert not said['ok'] and words in said['say'] and '()' not in said['say'] and said['state'] == before['state']

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
        assert page.locator('[aria-label="Saved runs"] input').count() == len(s.runs) >= 1
        page.get_by_role('button', name='Finish').click()
        page.locator('.hd-armed').click()
        settled(page)
        assert s.committed and f"{100*s.held_out['accuracy']:.1f} %" in page.locator('.hd-side').inner_text()
    assert replay(tmp_path/'log') == s

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
