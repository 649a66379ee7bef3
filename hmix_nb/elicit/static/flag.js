// Runs before the page is drawn, so that what only works with scripts shows at once, and its stand-in never.
document.documentElement.classList.add('js');
