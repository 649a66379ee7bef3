"A grid in a folder: killed, started twice, interrupted, on a cluster, each run is done once and none is lost."
import json, os, random, signal, subprocess, sys, time, warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
import pytest
from hmix_nb import __version__
from hmix_nb.engine import engine, usable
from hmix_nb.study.folder import claim, finished, read_row, read_rows, row_path, run_rows, run_to_disk, seconds_of, watch
from hmix_nb.study.recipe import FORMAT, Recipe, demo, grid, recipe_hash

FEW = grid(Recipe(), seed=range(5))

def fake(recipe, root=None, device=None):
    return dict(recipe=recipe_hash(recipe), **asdict(recipe), ce=1 + recipe.seed/10, seconds=.01, source='nowhere', pid=os.getpid())

def rows(recipes, out, run=fake, n_jobs=1, **kwargs): return run_rows(recipes, out, run=run, n_jobs=n_jobs, progress=False, **kwargs)

# A grid in a process group of its own. Each run notes its beginning in `log`; it takes up to 60 ms.
GRID = '''
import os, random, sys, time
from dataclasses import asdict
from hmix_nb.study.folder import run_rows
from hmix_nb.study.recipe import Recipe, grid, recipe_hash
out, n, jobs, backend, cluster = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5] or None
def fake(recipe, root=None, device=None, log=out + '/log'):
    with open(log, 'a') as f: f.write(f'{recipe_hash(recipe)} {os.getpid()}\\n')
    time.sleep(random.uniform(.02, .06) if recipe.seed < 1000 else 60)
    return dict(recipe=recipe_hash(recipe), **asdict(recipe), ce=recipe.seed/10, seconds=.04, source='nowhere')
first = 1000 if n < 0 else 0
run_rows(grid(Recipe(), seed=range(first, first + abs(n))), out, run=fake, n_jobs=jobs, backend=backend, cluster=cluster, progress=False)
'''

def start(out, n, jobs=2, backend='loky', cluster=''):
    # a shell that runs the tests in the background has its children ignore SIGINT; somebody at a keyboard has not
    code = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)' + GRID
    return subprocess.Popen([sys.executable, '-c', code, str(out), str(n), str(jobs), backend, cluster], start_new_session=True,
                            stderr=subprocess.PIPE, text=True)

def begun(out):
    log = Path(out)/'log'
    return [l.split()[0] for l in log.read_text().splitlines()] if log.exists() else []

def kept(out): return {p.stem: (p.stat().st_ino, p.stat().st_mtime_ns) for p in (Path(out)/'rows').glob('*.json')}

def wait_for(ready, seconds=60):
    limit = time.monotonic() + seconds
    while not ready() and time.monotonic() < limit: time.sleep(.02)
    assert ready()

def test_killed_20_times_rows_are_complete_none_doubled_none_lost(tmp_path):
    dice, n, kills, runners = random.Random(6), 150, 0, 0
    (tmp_path/'rows').mkdir()
    while kills < 20:
        before, at = kept(tmp_path), len(begun(tmp_path))
        assert len(before) < n, 'the grid was done before the last kill; give it more runs'
        p = start(tmp_path, n)
        runners += 1
        wait_for(lambda: len(begun(tmp_path)) > at or p.poll() is not None)
        time.sleep(dice.uniform(0, .25))
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        kills += 1
        now, did = kept(tmp_path), Counter(begun(tmp_path)[at:])
        assert {k: now.get(k) for k in before} == before # none lost, none written again
        assert not set(did) & set(before) and set(did.values()) <= {1} # none done again that was there, none twice
        assert set(did) >= set(now) - set(before) and len(set(did) - set(now)) <= 2 # two at a time: at most two were cut
    p = start(tmp_path, n)
    assert p.wait(120) == 0, p.stderr.read()
    hashes = {recipe_hash(r) for r in grid(Recipe(), seed=range(n))}
    assert set(kept(tmp_path)) == hashes == set(begun(tmp_path))
    assert {r['recipe']: r['ce'] for r in read_rows(tmp_path)} == {recipe_hash(r): r.seed/10 for r in grid(Recipe(), seed=range(n))}
    assert not list((tmp_path/'rows').glob('.*')) and not list((tmp_path/'claims').glob('*.run'))

def test_two_runners_at_once_do_each_run_once_and_both_have_all_rows(tmp_path):
    both = [start(tmp_path, 60) for _ in range(2)]
    for p in both: assert p.wait(120) == 0, p.stderr.read()
    assert len(begun(tmp_path)) == len(set(begun(tmp_path))) == len(kept(tmp_path)) == 60

def test_a_runner_waits_for_the_other_and_takes_over_when_that_is_killed(tmp_path):
    slow = start(tmp_path, -2) # two runs of a minute, both claimed
    wait_for(lambda: len(begun(tmp_path)) == 2)
    second = start(tmp_path, -2)
    time.sleep(2)
    assert second.poll() is None and len(begun(tmp_path)) == 2 # it waits
    os.killpg(slow.pid, signal.SIGKILL)
    slow.communicate()
    wait_for(lambda: len(begun(tmp_path)) == 4)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()

def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False

def workers(out): return {int(l.split()[1]) for l in (out/'log').read_text().splitlines()}

@pytest.mark.skipif(not Path('/proc').exists(), reason='needs /proc to look for processes')
def test_workers_end_when_their_parent_is_killed(tmp_path):
    p = start(tmp_path, 200)
    wait_for(lambda: len(kept(tmp_path)) > 5)
    os.kill(p.pid, signal.SIGKILL) # not its workers
    wait_for(lambda: not any(map(alive, workers(tmp_path))), 20)
    p.communicate()
    at = len(begun(tmp_path))
    assert at - len(kept(tmp_path)) <= 2 and len(kept(tmp_path)) < 200
    q = start(tmp_path, 200)
    assert q.wait(120) == 0, q.stderr.read()
    assert len(kept(tmp_path)) == 200 and len(begun(tmp_path)) <= 202

@pytest.mark.skipif(not Path('/proc').exists(), reason='needs /proc to look for processes')
def test_interrupt_keeps_finished_rows_and_stops_workers(tmp_path):
    for k, send in enumerate((os.kill, os.killpg)): # kill -INT, and Ctrl-C, which reaches the whole group
        out = tmp_path/str(k)
        out.mkdir()
        p = start(out, 100)
        wait_for(lambda: len(kept(out)) > 4)
        send(p.pid, signal.SIGINT)
        assert p.wait(30) != 0 and 4 < len(kept(out)) < 100
        assert 'KeyboardInterrupt' in p.stderr.read()
        wait_for(lambda: not any(map(alive, workers(out))), 10)
        assert len(begun(out)) - len(kept(out)) <= 2

def test_a_failing_run_is_recorded_with_its_traceback_and_the_rest_goes_on(tmp_path):
    def breaks(recipe, root=None, device=None):
        if recipe.seed == 2: raise FloatingPointError('the loss is nan in epoch 3')
        return fake(recipe)
    for n_jobs in (1, 2):
        out = tmp_path/str(n_jobs)
        got = rows(FEW, out, breaks, n_jobs)
        assert got.error.notna().tolist() == [False, False, True, False, False]
        row = json.loads(row_path(out, FEW[2]).read_text())
        assert row['error'] == 'FloatingPointError: the loss is nan in epoch 3' and 'in breaks' in row['traceback']
        assert (row['seed'], row['version'], row['format']) == (2, __version__, FORMAT) and 'ce' not in row
        assert rows(FEW, out).ce.notna().all() # the next start tries it again
        assert [p.name for p in (out/'old').iterdir()] == [f'{recipe_hash(FEW[2])}-0.json']

def test_a_row_that_is_no_json_is_a_failure_of_its_run(tmp_path):
    def odd(recipe, root=None, device=None): return fake(recipe) | dict(ce=object() if recipe.seed == 1 else 1.)
    assert rows(FEW, tmp_path, odd).error.notna().sum() == 1

@pytest.mark.parametrize('error', [MemoryError('no room'), RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')])
def test_out_of_memory_says_what_to_lower(tmp_path, error):
    def full(recipe, root=None, device=None): raise error
    assert 'lower --jobs' in rows(FEW[:1], tmp_path, full).error[0]

def test_a_run_that_kills_its_process_is_found_and_the_rest_goes_on(tmp_path):
    def deadly(recipe, root=None, device=None):
        if recipe.seed in (1, 3): os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(.05)
        return fake(recipe)
    got = rows(FEW, tmp_path, deadly, 2)
    assert got.error.notna().tolist() == [False, True, False, True, False] and 'its process died' in got.error[1]

def test_equal_recipes_are_run_once_and_rows_come_in_the_order_asked_for(tmp_path):
    calls = tmp_path/'calls'
    def counted(recipe, root=None, device=None):
        with calls.open('a') as f: f.write('x')
        return fake(recipe)
    assert rows((FEW[1], FEW[0], FEW[1]), tmp_path, counted).seed.tolist() == [1, 0, 1]
    assert calls.read_text() == 'xx'

def test_damaged_rows_warn_and_are_done_again(tmp_path):
    rows(FEW, tmp_path)
    whole = row_path(tmp_path, FEW[0]).read_text()
    other = row_path(tmp_path, FEW[1]).read_text()
    for text in (whole[:100], '', '[]', '{"a": 1}', 'null', '\x00'*50, other):
        row_path(tmp_path, FEW[0]).write_text(text)
        with pytest.warns(UserWarning, match='is damaged'): got = rows(FEW, tmp_path)
        assert got.ce[0] == 1. and finished(tmp_path, FEW[0])
    row_path(tmp_path, FEW[0]).write_bytes(b'\xff\xfe\x00')
    with pytest.warns(UserWarning, match='is damaged'): rows(FEW, tmp_path)

def put(out, recipe, **changes):
    row_path(out, recipe).parent.mkdir(parents=True, exist_ok=True)
    row_path(out, recipe).write_text(json.dumps(fake(recipe) | dict(version=__version__, format=FORMAT, ce=99.) | changes))

def test_a_row_of_another_version_is_read_and_of_another_format_refused(tmp_path):
    put(tmp_path, FEW[0], version='0.0.1')
    got = rows(FEW, tmp_path)
    assert got.ce[0] == 99. and got.version[0] == '0.0.1' and got.version[1] == __version__
    put(tmp_path, replace(FEW[0], seed=77), format=FORMAT + 1, version='9.9')
    with pytest.raises(ValueError, match='1 rows by hmix_nb 9.9 in another recipe format') as e: rows(FEW, tmp_path)
    assert '--fresh' in str(e.value) and '--out' in str(e.value)
    assert rows(FEW, tmp_path, fresh=True).ce.max() < 2 and len(list((tmp_path/'old').iterdir())) == 6
    assert len(read_rows(tmp_path)) == 5

def test_rows_before_formats_are_refused(tmp_path):
    put(tmp_path, FEW[0])
    row = json.loads(row_path(tmp_path, FEW[0]).read_text())
    row_path(tmp_path, FEW[0]).write_text(json.dumps({k: v for k, v in row.items() if k != 'format'}))
    with pytest.raises(ValueError, match='in another recipe format'): rows(FEW, tmp_path)

def test_a_row_of_another_recipe_or_source_does_not_count(tmp_path):
    put(tmp_path, FEW[0], epochs=99)
    put(tmp_path, FEW[1])
    assert finished(tmp_path, FEW[0]) is None
    assert finished(tmp_path, FEW[1], 'nowhere') and finished(tmp_path, FEW[1], 'originals') is None
    assert rows(FEW, tmp_path).ce.tolist()[:2] == [1., 99.]

def test_fresh_keeps_what_another_runner_is_at(tmp_path):
    rows(FEW, tmp_path)
    with claim(tmp_path, FEW[0]):
        from hmix_nb.study.folder import set_aside
        assert set_aside(tmp_path, FEW, {}, fresh=True) == {'fresh': 4}
    assert list(kept(tmp_path)) == [recipe_hash(FEW[0])]

def test_what_is_asked_for_is_checked_before_any_work(tmp_path):
    for n in (0, -1):
        with pytest.raises(ValueError, match=f'n_jobs: found {n}'): rows(FEW, tmp_path, n_jobs=n)
    with pytest.raises(ValueError, match="Did you mean 'dask'"): rows(FEW, tmp_path, backend='dusk')
    with pytest.raises(ValueError, match="Did you mean 'vgg11'"): run_rows([replace(demo().recipes[0], model='vgg12')], tmp_path)
    assert not list(tmp_path.rglob('*.json'))
    (tmp_path/'file').write_text('')
    for out in (tmp_path/'file', tmp_path/'file'/'below'):
        with pytest.raises(OSError, match='out: no folder can be at .*file.*; allowed is another one'): rows(FEW, out)

def test_a_device_that_is_not_there_is_named():
    import torch
    if torch.cuda.is_available(): pytest.skip('there is a GPU')
    with pytest.raises(ValueError, match="device: found 'cuda', and PyTorch sees no GPU here"): usable('cuda')

def test_time_left_comes_from_runs_of_the_same_kind():
    done = [asdict(Recipe(model='vgg11')) | dict(seconds=s) for s in (10, 20)] + [asdict(Recipe(epochs=1)) | dict(seconds=1)]
    assert seconds_of(Recipe(model='vgg11', seed=9), done) == 15
    assert seconds_of(Recipe(epochs=30), done) == 30
    assert seconds_of(Recipe(model='resnet50', epochs=10), [done[0]]) == 10
    assert seconds_of(Recipe(), [dict(error='x')]) is None
    assert seconds_of(Recipe(model='vgg11', epochs=24), [done[0] | dict(train_seconds=6)]) == 6*24/done[0]['epochs'] + 4 # scores take what they take

def test_the_bar_tells_workers_that_start_from_runs_without_an_estimate(tmp_path, capfd):
    def bar():
        with watch(tmp_path, FEW, 2): pass
        return capfd.readouterr().err
    (tmp_path/'rows').mkdir()
    assert 'workers are starting' in bar()
    (tmp_path/'claims').mkdir()
    (tmp_path/'claims'/f'{recipe_hash(FEW[0])}.run').write_text('killed') # a mark without a claim is nobody's
    assert 'workers are starting' in bar()
    with claim(tmp_path, FEW[0]): assert 'time left unknown' in bar()
    put(tmp_path, FEW[1])
    assert ' left' in (said := bar()) and 'starting' not in said and '1/5' in said

def test_the_bar_says_what_is_left_and_what_failed(tmp_path, capfd):
    def breaks(recipe, root=None, device=None):
        if recipe.seed == 2: raise ValueError('no')
        return fake(recipe)
    run_rows(FEW, tmp_path, run=breaks, n_jobs=1)
    err = capfd.readouterr().err
    assert '5/5' in err and 'done, 1 failed' in err

def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    for name, package in (('dask', 'distributed'), ('ray', 'ray')):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=f"backend: '{name}' needs a package: pip install {package}"): rows(FEW, tmp_path, backend=name)

@pytest.fixture(scope='module')
def dask_cluster():
    distributed = pytest.importorskip('distributed')
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as cluster: yield cluster

def test_two_dask_workers_share_a_grid(tmp_path, dask_cluster):
    def breaks(recipe, root=None, device=None):
        if recipe.seed == 3: raise ValueError('no')
        time.sleep(.05)
        return fake(recipe)
    got = rows(grid(Recipe(), seed=range(12)), tmp_path, breaks, None, backend='dask', cluster=dask_cluster.scheduler_address)
    assert got.seed.tolist() == list(range(12)) and got.error.notna().sum() == 1
    assert got.pid.dropna().nunique() == 2 and os.getpid() not in set(got.pid.dropna())

def test_a_dask_runner_and_a_local_one_share_a_folder(tmp_path, dask_cluster):
    both = [start(tmp_path, 40), start(tmp_path, 40, backend='dask', cluster=dask_cluster.scheduler_address)]
    for p in both: assert p.wait(120) == 0, p.stderr.read()
    assert len(begun(tmp_path)) == len(set(begun(tmp_path))) == len(kept(tmp_path)) == 40

def test_a_dask_cluster_that_is_not_there_says_what_to_start(tmp_path):
    pytest.importorskip('distributed')
    with pytest.raises(ValueError, match='no scheduler answers at tcp://127.0.0.1:9; start `dask scheduler`'):
        rows(FEW, tmp_path, backend='dask', cluster='tcp://127.0.0.1:9')

def test_many_threads_of_a_dask_worker_run_one_at_a_time(tmp_path):
    distributed = pytest.importorskip('distributed')
    def timed(recipe, root=None, device=None):
        start = time.time()
        time.sleep(.1)
        return fake(recipe) | dict(start=start, end=time.time())
    with distributed.LocalCluster(n_workers=1, threads_per_worker=4, dashboard_address=':0') as c, distributed.Client(c):
        got = rows(FEW, tmp_path, timed, 4, backend='dask').sort_values('start')
    assert (got.start.to_numpy()[1:] >= got.end.to_numpy()[:-1]).all()

TINY = replace(demo().recipes[0], epochs=1, n_train=100, pool=5)

def test_real_runs_side_by_side_give_the_rows_of_one_after_another(tmp_path):
    recipes = [replace(TINY, labelling=k, n_blends=45*(k != "none")) for k in ("none", "relabel+omega")]
    one, two = (run_rows(recipes, tmp_path/str(n), n_jobs=n, device='cpu', progress=False) for n in (1, 2))
    assert one.ce.notna().all() and one.ce.tolist() == two.ce.tolist() and one.fgsm.tolist() == two.fgsm.tolist()
    assert one.source.str.contains('simulated').all() and (one.version == __version__).all()
    again = run_rows(recipes, tmp_path/'2', n_jobs=1, device='cpu', progress=False)
    assert again.seconds.tolist() == two.seconds.tolist() # nothing was run again

def test_a_real_grid_is_killed_in_the_middle_of_a_run_and_goes_on(tmp_path):
    "As the test of twenty kills, but what is cut trains a net, and comes out as if nothing had happened."
    recipes = [replace(TINY, labelling='relabel', n_blends=45, epochs=30, seed=s) for s in range(4)]
    code = ('import sys; from dataclasses import replace; from hmix_nb.study.recipe import from_dict; from hmix_nb.study.folder import run_rows\n'
            'run_rows([from_dict(o) for o in eval(sys.argv[2])], sys.argv[1], n_jobs=1, device="cpu", progress=False)')
    argv = [sys.executable, '-c', code, str(tmp_path), repr([asdict(r) for r in recipes])]
    paths, marks = [row_path(tmp_path, r) for r in recipes], [tmp_path/'claims'/f'{recipe_hash(r)}.run' for r in recipes]
    def cut(): return [p for p, m in zip(paths, marks) if m.exists() and not p.exists()]
    p = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: p.poll() is not None or any(o.exists() for o in paths) and cut(), 120)
    assert p.poll() is None, p.stderr.read()
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    before, lost = kept(tmp_path), cut()
    assert 1 <= len(before) < 4 and len(lost) == 1 and all(read_row(o) for o in paths if o.exists())
    assert subprocess.run(argv, capture_output=True, text=True).returncode == 0
    after = kept(tmp_path)
    assert set(after) == {recipe_hash(r) for r in recipes} and before.items() <= after.items() and not (tmp_path/'old').exists()
    assert not list((tmp_path/'rows').glob('.*')) and not any(m.exists() for m in marks)
    again = run_rows([recipes[paths.index(lost[0])]], tmp_path/'whole', n_jobs=1, device='cpu', progress=False).iloc[0]
    for k in ('ce', 'calib', 'fgsm', 'train_loss'): assert read_row(lost[0])[k] == again[k]

@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs /proc to know what it has')
def test_memory_that_is_full_is_told_and_the_rest_goes_on(tmp_path):
    code = ('import resource, sys; from hmix_nb.study.recipe import from_dict; from hmix_nb.study.folder import run_rows; import hmix_nb.study.run\n'
            'has = int(open("/proc/self/statm").read().split()[0])*resource.getpagesize() + 2**30\n'
            'resource.setrlimit(resource.RLIMIT_AS, (has, has))\n'
            'run_rows([from_dict(o) for o in eval(sys.argv[2])], sys.argv[1], n_jobs=1, device="cpu", progress=False)')
    wide = replace(TINY, width=8192) # a layer of 2.4 GB, where 1 GB is left
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path), repr([asdict(wide), asdict(TINY)])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    error = read_row(row_path(tmp_path, wide))['error']
    assert 'out of memory with batch_size 64 of preact_small' in error and '--jobs' in error and 'allocate' in error
    assert read_row(row_path(tmp_path, TINY))['ce'] > 0

def test_real_runs_on_two_dask_workers_give_the_rows_of_this_process(tmp_path, dask_cluster):
    recipes = [replace(TINY, labelling=k, n_blends=45*(k != 'none')) for k in ('none', 'mixup', 'relabel')]
    away = run_rows(recipes, tmp_path/'a', backend='dask', cluster=dask_cluster.scheduler_address, device='cpu', progress=False)
    here = run_rows(recipes, tmp_path/'b', n_jobs=1, device='cpu', progress=False)
    for k in ('recipe', 'ce', 'calib', 'fgsm', 'train_loss', 'source'): assert away[k].tolist() == here[k].tolist()
    assert len(kept(tmp_path/'a')) == 3 and (away.attrs['start']['runs'], away.attrs['start']['jobs']) == (3, 2)

def test_a_worker_of_a_cluster_imports_torch_late_and_quietly(tmp_path):
    code = ('import pickle, sys; from hmix_nb.study import folder; from hmix_nb.study.recipe import from_dict\n'
            'run = pickle.loads(pickle.dumps(folder._trained)); assert "torch" not in sys.modules\n'
            'print(run(from_dict(eval(sys.argv[1])), device="cpu")["ce"])')
    done = subprocess.run([sys.executable, '-c', code, repr(asdict(TINY))], capture_output=True, text=True, env={**os.environ, 'PYTHONWARNINGS': ''})
    assert done.returncode == 0 and float(done.stdout) > 0 and 'torch.jit' not in done.stderr, done.stderr

def test_a_stand_in_does_not_count_once_the_originals_are_there(tmp_path):
    put(tmp_path, TINY, source='a stand-in')
    got = run_rows([TINY], tmp_path, n_jobs=1, device='cpu', progress=False)
    assert got.ce[0] < 90 and json.loads(next((tmp_path/'old').iterdir()).read_text())['source'] == 'a stand-in'

@pytest.fixture(scope='module')
def ray_cluster():
    ray = pytest.importorskip('ray', reason='Ray is not installed; Dask has a test of its own')
    here = dict(env_vars=dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *sys.path]))) # its workers shall find this file
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level='error', runtime_env=here)
    yield ray
    ray.shutdown()

@pytest.mark.parametrize('n_jobs', [1, 2])
def test_ray_works_in_its_workers_alone(tmp_path, ray_cluster, n_jobs):
    got = rows(FEW, tmp_path, fake, n_jobs, backend='ray')
    assert 'error' not in got and os.getpid() not in set(got.pid)

def test_ray_refuses_what_it_does_not_have(tmp_path, ray_cluster, monkeypatch):
    with pytest.raises(ValueError, match='Ray cluster has no GPU'): rows(FEW, tmp_path, backend='ray', device='cuda')
    monkeypatch.setattr('hmix_nb.engine.__version__', '9.9')
    with pytest.raises(ValueError, match='workers have hmix_nb .*, and this is 9.9'): rows(FEW, tmp_path, backend='ray')

class Breaks: # a pool whose worker is killed after some runs, or before all of them
    n = 2
    def __init__(self, done): self.done = done
    def map(self, f, items, alone=False):
        for r in items[:self.done]: f(r)
        self.done = self.done and len(items) # from the second time on it does everything
        return None if len(items) == len(FEW) else []

@pytest.mark.parametrize('done', [2, 0])
def test_a_worker_that_dies_between_two_runs_stops_nothing(tmp_path, monkeypatch, done):
    @contextmanager
    def breaks(*args, **kwargs): yield Breaks(done)
    monkeypatch.setattr('hmix_nb.study.folder.engine', breaks)
    if done: assert rows(FEW, tmp_path).ce.notna().all()
    else:
        with pytest.raises(ChildProcessError, match='before they begin a run'): rows(FEW, tmp_path)

def test_a_row_that_goes_as_it_is_gathered_is_told(tmp_path, monkeypatch):
    rows(FEW, tmp_path)
    def gone(path): return None if path.stem == recipe_hash(FEW[2]) else json.loads(path.read_text())
    monkeypatch.setattr('hmix_nb.study.folder.read_row', gone)
    monkeypatch.setattr('hmix_nb.study.folder.set_aside', lambda *a: {})
    got = rows(FEW, tmp_path)
    assert got.recipe.tolist() == [recipe_hash(r) for r in FEW] and 'start again' in got.error[2]
