"The hub against a web server on this machine: bad, cut and killed downloads, two processes, flipped bytes."
import hashlib, http.server, io, json, multiprocessing, os, pickle, shutil, signal
import subprocess, sys, tarfile, tempfile, threading, time
from pathlib import Path
import numpy as np, pytest
from hmix_nb.data.hub import _CHECKED, FILES, DataError, DataFile, DataHub

DATA = {'made/answers.csv': b'participant,answer\n' + b'p1,50\n'*500, 'made/pairs.csv': b'a,b\n1,2\n',
        'extra.csv': b'x\n1\n'}

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        self.server.asked.append(self.path)
        mode, body = self.server.mode, self.server.bodies[self.path[1:]]
        self.send_response(404 if mode == 'absent' else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if mode == 'absent': return
        if mode == 'slow': time.sleep(.5)
        if mode == 'wrong': body = body[:-2] + b'9\n'
        if mode in ('cut', 'stuck'):
            self.wfile.write(body[:len(body)//2])
            self.wfile.flush()
            if mode == 'stuck': self.server.half.set(); self.server.go_on.wait(30)
            self.close_connection = True
        else: self.wfile.write(body)

@pytest.fixture
def server():
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.mode, s.bodies, s.asked, s.half, s.go_on = 'good', dict(DATA), [], threading.Event(), threading.Event()
    s.url = f'http://127.0.0.1:{s.server_port}'
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.go_on.set(); s.shutdown(); s.server_close()

def made(url):
    return {n: DataFile(n, f'{url}/{n}', 'CC0', len(d), hashlib.sha256(d).hexdigest(), group=n.split('/')[0],
                        optional=n == 'extra.csv')
            for n, d in DATA.items()}

@pytest.fixture
def hub_here(server, tmp_path): return DataHub(tmp_path/'root', made(server.url))

def left(root): return sorted(p.relative_to(root).as_posix() for p in Path(root).rglob('*') if p.is_file())

# --- downloads

def test_downloads_once_with_a_bar(hub_here, server, capfd):
    assert hub_here.path('made/answers.csv').read_bytes() == DATA['made/answers.csv']
    assert 'made/answers.csv' in capfd.readouterr().err
    hub_here.path('made/answers.csv')
    assert len(server.asked) == 1 and left(hub_here.root) == ['made/answers.csv']

@pytest.mark.parametrize('mode, says', [('wrong', 'not the released file'), ('cut', 'made/answers.csv'),
                                        ('absent', '404')])
def test_bad_download_leaves_nothing(hub_here, server, mode, says):
    server.mode = mode
    with pytest.raises(DataError, match=says): hub_here.path('made/answers.csv')
    assert left(hub_here.root) == []
    server.mode = 'good'
    assert hub_here.path('made/answers.csv').is_file()

def test_interrupt_leaves_nothing(server, tmp_path):
    def stop(url, path, _):
        Path(path).write_bytes(b'half')
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): DataHub(tmp_path, made(server.url), stop).path('extra.csv')
    assert left(tmp_path) == []

def ask(root, url): DataHub(root, made(url)).path('made/answers.csv')

def test_killed_halfway(server, tmp_path):
    server.mode = 'stuck'
    p = multiprocessing.get_context('spawn').Process(target=ask, args=(tmp_path, server.url))
    p.start()
    assert server.half.wait(60)
    time.sleep(.1)
    os.kill(p.pid, signal.SIGKILL); p.join()
    assert not (tmp_path/'made/answers.csv').exists()
    assert not DataHub(tmp_path, made(server.url)).status().present.any()
    server.mode = 'good'
    ask(tmp_path, server.url)
    assert left(tmp_path) == ['made/answers.csv']

def test_two_processes_at_once(server, tmp_path):
    server.mode = 'slow'
    ps = [multiprocessing.get_context('spawn').Process(target=ask, args=(tmp_path, server.url)) for _ in range(2)]
    for p in ps: p.start()
    for p in ps: p.join(120)
    assert [p.exitcode for p in ps] == [0, 0]
    assert len(server.asked) == 1 and left(tmp_path) == ['made/answers.csv']

def test_missing_and_offline(tmp_path):
    files = made('http://127.0.0.1:9') # the port "discard": nobody answers
    with pytest.raises(DataError) as e: DataHub(tmp_path, files).path('extra.csv')
    parts = ('extra.csv', str(tmp_path), 'http://127.0.0.1:9/extra.csv', 'CC0', 'HMIX_DATA')
    assert all(part in str(e.value) for part in parts)
    assert list(e.value.failed) == ['extra.csv'] and left(tmp_path) == []

# --- a folder that cannot be written

def in_child(f):
    "Run `f` in a forked child without root's rights, for which no folder is read-only."
    def run(q):
        try:
            if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
            q.put(f())
        except BaseException as e: q.put(repr(e))
    ctx = multiprocessing.get_context('fork')
    q = ctx.Queue(); p = ctx.Process(target=run, args=(q,)); p.start()
    got = q.get(timeout=60); p.join()
    return got

@pytest.fixture
def read_only():
    root = Path(tempfile.mkdtemp())
    (root/'made').mkdir(); (root/'made/answers.csv').write_bytes(DATA['made/answers.csv'])
    for p in (root/'made/answers.csv', root/'made', root): p.chmod(0o444 if p.is_file() else 0o555)
    yield root
    for p in (root, root/'made'): p.chmod(0o755)
    shutil.rmtree(root)

def test_read_only_folder_works(read_only, server):
    files = made(server.url)
    def child():
        hub = DataHub(read_only, files)
        try: (read_only/'x').touch(); return 'the folder can be written'
        except PermissionError: pass
        ok = hub.path('made/answers.csv').is_file() and hub.status().verified.tolist() == [True, False, False]
        try: hub.path('made/pairs.csv')
        except DataError as e: return ok, str(e)
    ok, message = in_child(child)
    assert ok and 'read-only' in message and 'made/pairs.csv' in message
    assert server.asked == [] and left(read_only) == ['made/answers.csv']

def test_nothing_is_written_where_nothing_is_fetched(hub_here):
    hub_here.fetch()
    before = {p: p.stat().st_mtime_ns for p in [hub_here.root, *hub_here.root.rglob('*')]}
    hub_here.status(), hub_here.table(), repr(hub_here), hub_here.fetch(), hub_here.path('made/pairs.csv')
    assert before == {p: p.stat().st_mtime_ns for p in [hub_here.root, *hub_here.root.rglob('*')]}

# --- altered files

def flip(path, at):
    data, s = bytearray(path.read_bytes()), path.stat()
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(s.st_atime_ns, s.st_mtime_ns)) # as a failing disk would leave it

@pytest.mark.parametrize('old', [True, False], ids=['long there', 'just written'])
def test_flipped_byte(hub_here, old):
    path = hub_here.path('made/pairs.csv')
    if old: time.sleep(2.1); hub_here.status()
    assert hub_here.status().verified.tolist() == [False, True, False]
    assert any(key[1] == str(path) for key in _CHECKED) == old # a young file is checked each time
    for at in range(0, path.stat().st_size, 3):
        flip(path, at)
        assert not hub_here.status().verified.any()
        with pytest.raises(DataError, match='altered.*\n.*delete'): hub_here.path('made/pairs.csv')
        flip(path, at)
    assert hub_here.path('made/pairs.csv') == path

def test_altered_file_is_kept_for_its_owner(hub_here, server):
    path = hub_here.path('made/pairs.csv')
    path.write_bytes(b'mine')
    got = hub_here.fetch('made/pairs.csv', errors='collect')
    assert not got.ok.any() and path.read_bytes() == b'mine' and len(server.asked) == 1
    assert 'NO' in hub_here.table() and 'altered' in hub_here.table() and not hub_here.status().ok.all()

def test_folder_in_place_of_a_file(hub_here):
    (hub_here.root/'extra.csv').mkdir(parents=True)
    assert hub_here.status().set_index('file').loc['extra.csv', ['present', 'verified']].tolist() == [True, False]
    with pytest.raises(DataError, match='unreadable'): hub_here.path('extra.csv')

# --- names, groups, roots, tables

def test_fetch(hub_here, server):
    assert hub_here.fetch().file.tolist() == ['made/answers.csv', 'made/pairs.csv']
    assert hub_here.fetch(['made', 'extra.csv']).state.tolist() == ['already there', 'already there', 'fetched']
    with pytest.raises(ValueError, match="names: 'mad' is unknown. Did you mean 'made'"):
        hub_here.fetch(['made', 'mad'])
    with pytest.raises(ValueError, match='errors'): hub_here.fetch(errors='ignore')

def test_one_failure_does_not_stop_the_others(hub_here, server):
    server.bodies['made/answers.csv'] = b'other'
    got = hub_here.fetch(['made', 'extra.csv'], errors='collect')
    assert got.ok.tolist() == [False, True, True] and 'not the released file' in got.state[0]
    with pytest.raises(DataError, match='1 of 3 files failed') as e: hub_here.fetch(['made', 'extra.csv'])
    assert list(e.value.failed) == ['made/answers.csv']

def test_root(monkeypatch, tmp_path):
    monkeypatch.setenv('HMIX_DATA', str(tmp_path/'env'))
    assert DataHub().root == tmp_path/'env' and DataHub(tmp_path).root == tmp_path
    monkeypatch.delenv('HMIX_DATA')
    assert DataHub().root.name == 'hmix_nb'

def test_table(hub_here):
    hub_here.path('made/pairs.csv')
    lines = hub_here.table().splitlines()
    assert lines[0] == f'Folder: {hub_here.root}'
    assert lines[2].split() == ['file', 'present', 'verified', 'size', 'licence', 'source']
    assert lines[3].split()[1:3] == ['NO', '-'] and lines[4].split()[1:3] == ['yes', 'yes']
    assert 'no, optional' in lines[5]
    assert '1 missing' in lines[-1]

def test_unknown_name(hub_here):
    with pytest.raises(ValueError, match="Did you mean 'extra.csv'"): hub_here.path('extras.csv')

def test_registry():
    assert len(FILES) == 19
    assert [n for n, f in FILES.items() if f.optional] == ['cifar10-train.npz', 'cifar-10-c/CIFAR-10-C.tar']
    for n, f in FILES.items():
        assert f.name == n and f.url.startswith('https://') and f.licence and f.bytes > 0 and f.group
        assert len(f.sha256) == 64 or len(f.md5) == 32 or f.images

def test_no_torch():
    code = ("import sys, hmix_nb.data.hub, hmix_nb.data.judgments; hmix_nb.data.hub.DataHub('nowhere').table(); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, '-c', code], check=True)

# --- images

X, Y = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20) % 10

def binary(x, y): return b''.join(bytes([l]) + i.transpose(2, 0, 1).tobytes() for i, l in zip(x, y.tolist()))

def image_file(url='', **kw):
    return DataFile('cifar10-test.npz', url, 'none stated', 1, images=20,
                    **dict(labels=hashlib.sha256(Y.astype('u1').tobytes()).hexdigest(),
                           batches=(hashlib.sha1(binary(X, Y)).hexdigest(),)) | kw)

def save(folder, x=X, y=Y.astype('u1'), source='a copy', **kw):
    np.savez_compressed(Path(folder)/'cifar10-test.npz', images=x, labels=y, source=source, **kw)

def state(root, **kw):
    s = DataHub(root, {'cifar10-test.npz': image_file(**kw)}).status().iloc[0]
    return bool(s.verified), s.state

def test_original_or_stand_in(tmp_path):
    save(tmp_path); assert state(tmp_path) == (True, 'original')
    other = X.copy(); other[0, 0, 0, 0] ^= 1
    save(tmp_path, other); assert state(tmp_path) == (True, 'stand-in: a copy')
    save(tmp_path, other, source='original: as ever'); assert not state(tmp_path)[0]
    hub = DataHub(tmp_path, {'cifar10-test.npz': image_file()})
    save(tmp_path, other); assert 'yes, stand-in' in hub.table() and 'is a stand-in: a copy' in hub.table()

def test_wrong_images(tmp_path):
    for kw in (dict(x=X[:19]), dict(y=Y[::-1].astype('u1')), dict(x=X.astype(float)), dict(y=Y.astype(float)),
               dict(y=Y[:, None])):
        save(tmp_path, **kw)
        assert not state(tmp_path)[0], kw
    np.savez(tmp_path/'cifar10-test.npz', images=X)
    assert not state(tmp_path)[0]
    save(tmp_path, y=np.zeros(20, 'u1')); assert not state(tmp_path, labels='')[0]
    (tmp_path/'cifar10-test.npz').write_bytes(b'no npz'); assert not state(tmp_path)[0]

def test_flipped_byte_in_images(tmp_path):
    other = X.copy(); other[0] = 0
    save(tmp_path, other)
    path = tmp_path/'cifar10-test.npz'
    for at in (0, 100, path.stat().st_size//3, path.stat().st_size//2, path.stat().st_size-1):
        flip(path, at); assert not state(tmp_path)[0], at
        flip(path, at)
    assert state(tmp_path)[0]

@pytest.fixture
def torchvision_here(server, monkeypatch):
    "torchvision's own downloader, on a made archive of the same make."
    from torchvision.datasets import CIFAR10
    batch = pickle.dumps(dict(data=X.transpose(0, 3, 1, 2).reshape(20, -1), labels=Y.tolist()))
    meta = pickle.dumps(dict(label_names=list('abcdefghij')))
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode='w:gz') as tar:
        for name, data in (('test_batch', batch), ('data_batch_1', batch), ('batches.meta', meta)):
            info = tarfile.TarInfo(f'{CIFAR10.base_folder}/{name}'); info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    server.bodies['c.tar.gz'] = buf.getvalue()
    md5 = lambda b: hashlib.md5(b).hexdigest()
    monkeypatch.setattr(CIFAR10, 'url', f'{server.url}/c.tar.gz')
    monkeypatch.setattr(CIFAR10, 'tgz_md5', md5(buf.getvalue()))
    monkeypatch.setattr(CIFAR10, 'test_list', [['test_batch', md5(batch)]])
    monkeypatch.setattr(CIFAR10, 'train_list', [['data_batch_1', md5(batch)]])
    monkeypatch.setattr(CIFAR10, 'meta', dict(filename='batches.meta', key='label_names', md5=md5(meta)))
    return server

def test_conversion(torchvision_here, tmp_path):
    hub = DataHub(tmp_path, {'cifar10-test.npz': image_file(),
                             'cifar10-train.npz': DataFile('cifar10-train.npz', '', 'none', 1, images=20)})
    with np.load(hub.path('cifar10-test.npz')) as z:
        assert (z['images'] == X).all() and (z['labels'] == Y).all() and z['labels'].dtype == np.uint8
        assert str(z['source']).startswith('original: converted from cifar-10-python.tar.gz, md5')
    hub.path('cifar10-train.npz')
    assert hub.status().state[0] == 'original' and hub.status().state[1].startswith('stand-in: pixels other than those')
    assert left(tmp_path) == ['cifar10-test.npz', 'cifar10-train.npz']

def test_conversion_of_a_damaged_archive(torchvision_here, tmp_path):
    torchvision_here.mode = 'wrong'
    hub = DataHub(tmp_path, {'cifar10-test.npz': image_file()})
    with pytest.raises(DataError, match='could not be fetched'): hub.path('cifar10-test.npz')
    assert left(tmp_path) == []

# --- the real files

def test_real_files(hub):
    s = hub.status().set_index('file')
    assert s[~s.optional].verified.all() and s.ok.all()
    assert s.state['cifar10-test.npz'].split(':')[0] in ('original', 'stand-in')

def test_registry_is_the_manifest(hub):
    if not (hub.root/'MANIFEST.json').exists(): pytest.skip('no MANIFEST.json in HMIX_DATA')
    for m in json.loads((hub.root/'MANIFEST.json').read_text()):
        f = FILES[m['name']]
        assert f.licence == m['licence']
        if m['sha256']: assert (f.url, f.sha256, f.bytes) == (m['url'], m['sha256'], m['bytes'])
        else: assert f.labels in m['note']

def test_one_byte_of_each_real_file(hub, tmp_path):
    for n in hub.names():
        (tmp_path/n).parent.mkdir(exist_ok=True)
        shutil.copyfile(hub.root/n, tmp_path/n)
    copy = DataHub(tmp_path)
    assert copy.status().ok.all()
    for n in hub.names(): flip(tmp_path/n, (tmp_path/n).stat().st_size//2)
    assert not copy.status().verified.any()
