// Pictures of which one is taken: the browser's radio buttons, and arrows that follow the grid.
'use strict';
(() => {
  const grid = document.getElementById('pictures'), radios = [...grid.querySelectorAll('input[type=radio]')];
  const columns = () => {
    const top = radios[0].getBoundingClientRect().top;
    return radios.filter(o => Math.abs(o.getBoundingClientRect().top - top) < 4).length;
  };
  const take = to => {
    if (!radios[to]) return;
    radios[to].focus();
    radios[to].checked = true;
    hmix.say([]);
  };
  addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = radios.indexOf(document.activeElement), idle = [document.body, null].includes(document.activeElement);
    const by = {ArrowUp: -columns(), ArrowDown: columns(), ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (by && (at >= 0 || idle)) {
      event.preventDefault();
      const now = at >= 0 ? at : radios.findIndex(o => o.checked);
      take(now >= 0 ? now + by : by < 0 ? 0 : radios.length === 2 ? 1 : 0); // of two, the arrow points at one
    } else if (event.key === 'Enter' && idle && !event.repeat) {
      hmix.form.requestSubmit();
    }
  });
  grid.addEventListener('change', () => hmix.say([]));
  hmix.checks.push(() => radios.some(o => o.checked) ? [] : [{text: grid.dataset.missing, near: grid}]);
})();
