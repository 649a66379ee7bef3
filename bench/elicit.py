"""Kill the server of a study again and again while simulated people answer, and look for what was lost.

`python bench/elicit.py` sends 200 people at once to a server that is killed (-9) and started again at 20 random moments, with SQLite and,
where its programs are found, with PostgreSQL. Every answer that was acknowledged has to be in the store exactly once, no batch may have
more finished people than wanted and leases that expired, and everybody has to finish."""
import argparse, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
import httpx, numpy as np
from hmix_nb.core import rng
from hmix_nb.data.simulated import SimulatedParticipants
from hmix_nb.elicit.bots import MANNERS, audit, make_bots, send_bots
from hmix_nb.elicit.spec import Spec
from hmix_nb.elicit.store import Store

SERVE = 'import sys; from hmix_nb.cli import main; sys.exit(main())'

def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()[1]

class Server:
    "`hmix elicit serve` in a process of its own, which can be killed and started again at the same address."
    def __init__(self, study, db, port=None, log=None):
        self.study, self.db, self.port, self.starts, self.down, self.log = str(study), str(db), port or free_port(), 0, 0., log
        self.url = f'http://127.0.0.1:{self.port}'

    def start(self):
        began = time.monotonic()
        words = ['elicit', 'serve', self.study, '--db', self.db, '--port', str(self.port)]
        self.process = subprocess.Popen([sys.executable, '-c', SERVE, *words], stdout=subprocess.DEVNULL, stderr=self.log or subprocess.DEVNULL)
        while True:
            try: httpx.get(f'{self.url}/robots.txt', timeout=2)
            except httpx.TransportError:
                if self.process.poll() is not None: raise RuntimeError(f'the server ended with {self.process.returncode}')
                if time.monotonic() - began > 60: raise
                time.sleep(.05)
            else: break
        self.starts, self.down = self.starts + 1, self.down + time.monotonic() - began
        return self

    def kill(self, with_=signal.SIGKILL):
        self.process.send_signal(with_)
        self.process.wait(60)

@contextmanager
def postgres():
    "A PostgreSQL cluster for the moment, under an unprivileged user; yields its URL, or `None` where there is none."
    found = shutil.which('initdb') or next((str(p) for p in sorted(Path('/usr/lib/postgresql').glob('*/bin/initdb'))), None)
    if found is None:
        yield None
        return
    bin_, port = Path(found).parent, free_port()
    who = dict(user='nobody', group='nogroup', extra_groups=[]) if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix='hmix-pg-'))
    if who: shutil.chown(folder, 'nobody', 'nogroup')
    env = os.environ | dict(LC_ALL='C', HOME=str(folder))
    quiet = dict(cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([found, '-D', str(folder/'data'), '-U', 'hmix', '-A', 'trust', '-E', 'UTF8'], check=True, **quiet, **who)
    server = subprocess.Popen([str(bin_/'postgres'), '-D', str(folder/'data'), '-k', str(folder), '-h', '127.0.0.1', '-p', str(port)], **quiet, **who)
    try:
        for _ in range(200):
            try: socket.create_connection(('127.0.0.1', port), .2).close()
            except OSError: time.sleep(.05)
            else: break
        time.sleep(.3)
        yield f'postgresql://hmix@127.0.0.1:{port}/postgres'
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)

def study_for(n, folder, lease=60., per_batch=27):
    "A study on digits with places for `n` people, or up to four more; writes its file."
    more = dict(n_pairs=1, per_batch=per_batch, repeats=2, lease_minutes=lease)
    n_batches = len(Spec.new('coefficient', 'digits', **more).batches)
    return Spec.new('coefficient', 'digits', name='load', wanted=-(-n//n_batches), **more).save(folder/'load.yaml')

def run(db, n=200, kills=20, seed=0, folder=None, manners=None, dropouts=0, lease=60., per_batch=27):
    "One load test; returns what was found and how long it took."
    folder = Path(folder or tempfile.mkdtemp())
    path = study_for(n, folder, lease, per_batch)
    spec = Spec.load(path)
    places = len(spec.batches)*spec.wanted
    total = sum(spec.n_trials(b) for b in spec.batches)*spec.wanted
    server = Server(path, db or folder/'load.db', log=open(folder/'server.log', 'ab'))
    people = SimulatedParticipants(places + dropouts, seed)
    bots = make_bots(server.url, spec, places + dropouts, people, manners or dict.fromkeys(('double', 'reload', 'drop'), .03), seed,
                     patience=180, queue=600)
    for b in bots[:dropouts]: b.stop = 5
    at, over = sorted(rng(seed, 'kills').integers(total//50, int(.97*total), kills).tolist()), threading.Event()
    def killer():
        for k in at:
            while sum(len(b.report.answers) for b in bots) < k:
                if over.wait(.02): return
            server.kill()
            server.start()
    server.start()
    server.down, began = 0., time.monotonic()
    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    with ThreadPoolExecutor(1) as first: # who drops out has a place to leave: later there may be none
        gone = first.submit(send_bots, bots[:dropouts])
        while not gone.done() and not all(o.report.answers for o in bots[:dropouts]): time.sleep(.02)
        rest = send_bots(bots[dropouts:])
        reports = gone.result() + rest
    took = time.monotonic() - began
    over.set()
    thread.join()
    server.kill(signal.SIGTERM)
    store = Store(server.db, spec)
    found, answers = audit(reports, store), store.answers()
    seconds = np.concatenate([r.seconds for r in reports])
    per = answers[~answers['repeat'].astype(bool)].groupby('stimulus').participant.nunique()
    store.close()
    ends = {e: sum(r.end == e for r in reports) for e in sorted({r.end for r in reports})}
    return dict(database=server.db.partition(':')[0] if '://' in server.db else 'sqlite', people=len(bots), kills=server.starts - 1, **ends, **found,
                most_per_stimulus=int(per.max()), fewest=int(per.min()), wanted=spec.wanted, minutes=took/60, down_minutes=server.down/60,
                answers_per_s=found['acknowledged']/(took-server.down), failures=sum(r.failures for r in reports),
                **{f'p{q}_ms': 1000*float(np.percentile(seconds, q)) for q in (50, 95, 99)}), reports

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--people', type=int, default=200)
    p.add_argument('--kills', type=int, default=20)
    p.add_argument('--dropouts', type=int, default=10, help='people who leave after five answers; their leases expire')
    p.add_argument('--lease', type=float, default=1., help='minutes')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--only', choices=('sqlite', 'postgresql'))
    args = p.parse_args()
    common = dict(n=args.people, kills=args.kills, seed=args.seed, dropouts=args.dropouts, lease=args.lease)
    if args.only != 'postgresql': show(run(None, **common))
    if args.only == 'sqlite': return
    with postgres() as url:
        if url is None: return print('PostgreSQL: no initdb found, not tested')
        os.environ['HMIX_SECRET'] = 'a secret for this test alone'
        show(run(url, **common))

def show(made):
    found, reports = made
    for k, v in found.items(): print(f'{k:18} {v:.1f}' if isinstance(v, float) else f'{k:18} {v}')
    for r in reports:
        for odd in r.odd: print(r.name, odd)
    print(flush=True)

if __name__ == '__main__': main()
