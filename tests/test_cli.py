"The command line: every bad value ends in one line and a code, what was run is said, and nothing is slow that need not be."
import json, os, shlex, shutil, signal, socket, subprocess, sys, time
from dataclasses import asdict, replace
import httpx
import pandas as pd
import pytest
from hmix_nb.cli import main
from hmix_nb.study.recipe import FORMAT, STUDIES, get_study, recipe_hash

HMIX = [sys.executable, '-c', 'import sys; from hmix_nb.cli import main; sys.exit(main())']
TINY = ['--arms', 'none', 'mixup', '--set', 'epochs=1', 'n_train=100', 'pool=5', 'batch_size=32', '--jobs', '1', '--device', 'cpu']

def refused(capsys, *argv):
    "What is said of a command that cannot be."
    assert main([*argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith('hmix: ') and err.count('\n') == 1, err
    return err

@pytest.mark.parametrize('argv, said', [
    ('uai-tabel2', "study: 'uai-tabel2' is unknown. Did you mean 'uai-table2'"),
    ('demo --labelling relable', "Did you mean 'relabel'"),
    ('demo --arms relable', "arms: 'relable' is unknown. Did you mean 'relabel'"),
    ('demo --set epoch=3', "unknown field 'epoch'. Did you mean 'epochs'"),
    ('demo --set epochs=few', "epochs: found 'few'"),
    ('demo --set epochs', "--set: found 'epochs'; allowed is FIELD=VALUE"),
    ('demo --set =3', "--set: found '=3'"),
    ('demo --set nobody:epochs=3', "arm: 'nobody' is unknown"),
    ('demo --set kappa=.5', 'no run of demo makes use of it'),
    ('demo --set epocs=3', "unknown field 'epocs'. Did you mean 'epochs'"),
    ('demo --set lr=-1', 'lr: found -1; allowed is a finite number of at least 0'),
    ('uai-table2 --set epochs=1', 'drops: found (101, 151); allowed is (), since there is one epoch'),
    ('uai-table2 --set epochs=100', 'allowed is a tuple of whole numbers from 1 to 99, in order'),
    ('uai-table3 --set alpha=1e-5', 'alpha: found 1e-05; allowed is a number of at least 0.01'),
    ('demo --set n_train=1750', 'n_train: found 1750 with bin_size=100; allowed is at most 1597'),
    ('demo --form fsat', "Did you mean 'fast'"),
    ('demo --seeds 0', 'seeds: found 0'),
    ('demo --jobs 0', 'n_jobs: found 0'),
    ('demo --device gpu', "device: found 'gpu'; allowed are 'cpu' and 'cuda'"),
    ('demo --device cuda:99', 'GPU here'),
    ('demo --backend dusk', "Did you mean 'dask'"),
    ('demo --backend loky --cluster tcp://here:1', 'which has none'),
    ('demo --tune kapa', 'kapa'),
    ('--tune lr', 'no study'),
])
def test_a_bad_value_ends_in_one_line(capsys, monkeypatch, tmp_path, argv, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, 'run', *argv.split())

def test_a_gpu_that_is_not_there_is_one_line(capsys, monkeypatch, tmp_path):
    import torch
    if torch.cuda.is_available(): pytest.skip('there is a GPU')
    monkeypatch.chdir(tmp_path)
    assert "device: found 'cuda', and PyTorch sees no GPU here" in refused(capsys, 'run', 'demo', '--device', 'cuda')

def test_a_file_where_a_folder_should_be_is_named(capsys, tmp_path):
    (tmp_path/'afile').write_text('mine')
    for more in ([], ['--fresh']): assert f"out: no folder can be at {tmp_path/'afile'}" in refused(capsys, 'run', 'demo', '--quick', '--out', str(tmp_path/'afile'), *more)
    assert (tmp_path/'afile').read_text() == 'mine'

def test_missing_images_are_said_before_any_work(capsys, tmp_path):
    assert main(['run', 'uai-table2', '--quick', '--root', str(tmp_path), '--out', str(tmp_path/'o')]) == 2
    out = capsys.readouterr()
    assert 'Reduced: epochs is ' in out.out and ', in the full recipe 200' in out.out and 'cifar10-test.npz' in out.err

def test_a_folder_that_is_none_of_a_study_is_refused(capsys, tmp_path):
    assert 'no folder' in refused(capsys, 'report', str(tmp_path/'nowhere'))
    assert 'study.json' in refused(capsys, 'report', str(tmp_path))

def test_the_list_has_all_studies_with_their_numbers_of_runs():
    code = 'import sys; from hmix_nb.cli import main; main(["run"]); print([m for m in ("torch", "pandas", "matplotlib") if m in sys.modules])'
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[-1] == '[]'
    for name in STUDIES:
        line = next(l for l in said if l.startswith(name + ' '))
        assert [int(o) for o in line.split()[1:3]] == [len(get_study(name)), len(get_study(name, quick=True))]

def test_help_waits_for_nothing():
    code = 'import sys; from hmix_nb.cli import parser; parser().format_help(); print("numpy" in sys.modules, "joblib" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == 'False False\n'

def test_data_is_listed(capsys, tmp_path):
    assert main(['data', '--root', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'h-mix/hmix_infer_mixing_factor.csv' in out and 'CC BY-NC-SA 4.0' in out

def test_a_study_runs_goes_on_and_is_reported(capsys, tmp_path):
    out = str(tmp_path/'o')
    argv = ['run', 'demo', '--quick', '--seeds', '1', *TINY, '--out', out]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert 'Reduced: epochs is 1, in the full recipe 12' in said.out and 'Reduced: runs is 2, in the full recipe 30' in said.out
    assert 'Next: hmix run demo' in said.out and '2/2' in said.err
    rows = pd.read_csv(f'{out}/rows.csv')
    assert rows.labelling.tolist() == ['none', 'mixup'] and rows.ce.notna().all()
    assert main(argv) == 0 # nothing is left to do
    assert pd.read_csv(f'{out}/rows.csv').seconds.tolist() == rows.seconds.tolist()
    os.remove(f'{out}/report.html')
    assert main(['report', out]) == 0 and os.path.exists(f'{out}/report.html')
    assert 'Next: hmix run demo\n' in capsys.readouterr().out # the whole of it, from what the folder says
    os.remove(next(tmp_path.glob('o/rows/*.json')))
    assert main(['report', out]) == 0 and f"Next: {shlex.join(['hmix', *argv])}\n" in capsys.readouterr().out # what is missing, first
    assert main([*argv, '--fresh']) == 0 and len(os.listdir(f'{out}/old')) == 1

def test_the_next_step_of_a_reported_study_has_its_name(capsys, tmp_path):
    from hmix_nb.study.page import write_report
    for name, then in (('thesis-4.1', 'hmix run'), ('thesis-4.1-quick', 'hmix run thesis-4.1'), ('thesis-4.1-quick-part-tuned', 'hmix run thesis-4.1')):
        study = replace(get_study('thesis-4.1', quick=True), name=name)
        rows = [dict(recipe=recipe_hash(r), **asdict(r), ce=1., version='0', source='made', format=FORMAT) for r in study.recipes]
        write_report(tmp_path/name, study, pd.DataFrame(rows), command='hmix run this')
        (tmp_path/name/'rows').mkdir()
        for o in rows: (tmp_path/name/'rows'/f"{o['recipe']}.json").write_text(json.dumps(o))
        assert main(['report', str(tmp_path/name)]) == 0 and f'Next: {then}\n' in capsys.readouterr().out
        shutil.rmtree(tmp_path/name/'rows') # a folder of rows.csv alone is as whole
        assert main(['report', str(tmp_path/name)]) == 0 and f'Next: {then}\n' in capsys.readouterr().out

def test_a_run_that_fails_is_said_and_ends_with_1(capsys, tmp_path):
    out = str(tmp_path/'o')
    assert main(['run', 'demo', '--quick', '--seeds', '1', *TINY, '--set', 'mixup:lr=1e30', 'epochs=2', '--out', out]) == 1
    err = capsys.readouterr().err
    assert 'hmix: 1 of 2 runs failed: ' in err and 'the same command tries them again' in err
    assert main(['report', out]) == 1

@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')
def test_the_desk_is_served_stopped_and_goes_on(tmp_path):
    def served(*argv):
        return subprocess.Popen([*HMIX, 'directions', 'serve', 'a.jsonl', '--port', '0', *argv], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=os.environ | dict(PYTHONUNBUFFERED='1'))
    def ended(p):
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0 and 'Traceback' not in err, err
        return out
    p = served('--dataset', 'xor', '-n', '12', '--seed', '3', '--annotator', 'ann')
    try:
        url = p.stdout.readline().split()[-1]
        with httpx.Client(timeout=30) as client:
            page = client.get(url)
            assert page.status_code == 200 and 'data-directions' in page.text
            csrf = page.text.split('data-csrf="')[1].split('"')[0]
            said = client.post(url + '/do', data=dict(csrf=csrf, say='{"do": "arrow_commit", "point": 3, "v": [0.5, 0.5]}')).json()
            assert said['ok'] and len(said['state']['points']) == 12
        assert 'Kept in a.jsonl' in p.stdout.readline()
        ended(p)
        p = served('--seed', '3')
        assert 'Going on with Session(' in (first := p.stdout.readline()) and 'xor, 1 arrow,' in first
        url = p.stdout.readline().split()[-1]
        assert httpx.get(url, timeout=30).status_code == 200
        ended(p)
    finally:
        p.kill()
        p.wait()

def test_a_desk_that_cannot_be_is_one_line(capsys, tmp_path):
    log = tmp_path/'a.jsonl'
    serve = lambda *argv: refused(capsys, 'directions', 'serve', str(log), *argv)
    assert "name: 'moon' is unknown. Did you mean 'moons'" in serve('--dataset', 'moon')
    for n in ('0', '6000'): assert f'n: found {n}; allowed is a finite number in [1, 5000]' in serve('-n', n)
    with socket.create_server(('127.0.0.1', 0)) as s: assert 'try another, or 0' in serve('--port', str(s.getsockname()[1])) # the log is there from now on
    assert "annotator: found 'bob', and " in serve('--annotator', 'bob')
    assert 'seed: found 5, and ' in serve('--seed', '5') and "dataset: found 'xor', and " in serve('--dataset', 'xor')
    assert 'try another' in serve('--port', '99999')
    log.write_text('no log\n')
    assert 'log: line 1 is no event' in serve()

def test_the_direction_study_runs_by_its_command_and_does_what_is_left(tmp_path):
    from hmix_nb.directions.command import DIRECTIONS, job_path, jobs_of
    jobs = jobs_of(DIRECTIONS['direction-2d'], quick=True, seeds=2)
    (tmp_path/'o'/'rows').mkdir(parents=True)
    for o in jobs[:-3]: # all that is there already is made up; the last three are run
        rows = [{k: o[k] for k in ('pool', 'set', 'arm', 'oracle', 'n', 'k')} | dict(lr=.01, decay=0., alpha=0., gamma=0., seed=i, accuracy=.5, nll=1., drawn=12) for i in range(2)]
        job_path(tmp_path/'o', 'direction-2d', o).write_text(json.dumps(dict(rows=rows, seconds=1.)))
    argv = [*HMIX, 'run', 'direction-2d', '--quick', '--seeds', '2', '--jobs', '1', '--out', 'o']
    p = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    assert 'Reduced: 40 jobs with 2 seeds, in full 152 with 40.' in p.stdout and 'Open o' in p.stdout
    rows = pd.read_csv(tmp_path/'o'/'rows.csv')
    assert len(rows) == 80 and (rows.accuracy != .5).sum() == 6 and rows.accuracy[-6:].between(.4, 1).all()
    page = (tmp_path/'o'/'report.html').read_text(encoding='utf-8')
    assert '37 jobs, 37 s in all, on a machine that was not noted' in page and '3 jobs, ' in page

@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')
@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130_and_keeps_rows(tmp_path, sig):
    code = ['-c', 'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom hmix_nb.cli import main\nsys.exit(main())']
    argv = ['run', 'demo', '--arms', 'none', '--seeds', '300', '--set', 'epochs=1', 'n_train=100', 'pool=5', '--jobs', '2', '--out', 'o']
    p = subprocess.Popen([sys.executable, *code, *argv], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    limit = time.monotonic() + 120
    while len(list(tmp_path.glob('o/rows/*.json'))) < 1 and p.poll() is None and time.monotonic() < limit: time.sleep(.1)
    p.send_signal(sig)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == 130 and 'Interrupted. What is finished is kept' in err and 'Traceback' not in err
    rows = [json.loads(o.read_text()) for o in tmp_path.glob('o/rows/*.json')]
    assert 1 <= len(rows) < 300 and all('ce' in r for r in rows)
