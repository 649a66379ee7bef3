"Package metadata, read from settings.ini (nbdev's one place for it)."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

root = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

setup(name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
      author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
      long_description=(root/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
      packages=find_packages(include=['hmix_nb', 'hmix_nb.*']), include_package_data=True, zip_safe=False,
      python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
      extras_require={'dev': cfg['dev_requirements'].split()},
      entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': [f"{cfg['lib_name']} = {cfg['lib_name']}._modidx"]},
      classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research',
                   'License :: OSI Approved :: Apache Software License', 'Natural Language :: English',
                   *(f'Programming Language :: Python :: 3.{v}' for v in (10, 11, 12, 13))])
