#!/usr/bin/env python3
"""`overlay_venv.py BASE NEW PACKAGE...`: make environment NEW that sees BASE's packages, with the newest PACKAGEs laid over them.

The second environment costs megabytes, not the gigabytes of another torch. nbdev, which the newest fastcore breaks, is not used in it."""
import subprocess, sys, venv
from pathlib import Path

def site_packages(env):
    code = 'import sysconfig; print(sysconfig.get_paths()["purelib"])'
    return Path(subprocess.run([str(env/'bin'/'python'), '-c', code], check=True, capture_output=True, text=True).stdout.strip())

def main(base, new, *packages):
    base, new = Path(base).resolve(), Path(new).resolve()
    venv.create(new, with_pip=True, clear=True, symlinks=True)
    # addsitedir rather than a bare path: it also reads BASE's .pth files, where the editable install of this package lives
    (site_packages(new)/'zz_base.pth').write_text(f'import site; site.addsitedir({str(site_packages(base))!r})\n')
    subprocess.run([str(new/'bin'/'python'), '-m', 'pip', 'install', '--quiet', '--no-warn-conflicts', '--upgrade', *packages], check=True)

if __name__ == '__main__': main(*sys.argv[1:])
