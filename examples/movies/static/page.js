// The page of the movies: lists come from the read model, changes go to the service. All data is set as text.
const $ = id => document.getElementById(id);
const LIMIT = 20, FIELDS = ['title', 'director', 'released', 'genre', 'imdb_rating'];
const FILTERS = ['genre', 'rating', 'year'];
let offset = 0, asked = 0, shown = '', film = null, theirs = null, typing, stream = null, relist, awaited = null;
const arrived = new Map(); // film id: [version, when] as the stream told it

async function call(method, path, body) {
  const began = performance.now();
  let response;
  try {
    response = await fetch(path, {
      method, headers: { 'Content-Type': 'application/json', 'Request-Timeout': '5' }, body: body && JSON.stringify(body),
    });
  } catch {
    throw { status: 0, detail: 'The API cannot be reached.' };
  }
  const travelled = Math.round(performance.now() - began);
  if (method !== 'GET' || !path.includes('?')) {
    const there = /total;dur=([\d.]+)/.exec(response.headers.get('Server-Timing'))?.[1];
    $('journey').textContent = `${method} ${path}: ${travelled} ms in all, ${there ?? '?'} ms of it in ` +
      `${response.headers.get('Served-By') ?? 'the API'} and beyond (queue, service, reply). Status ${response.status}.`;
  }
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw answer ?? { status: response.status, detail: `The API answered ${response.status}.` };
  return answer;
}

function said(problem) {
  if (problem.status === 503 || problem.status === 504) return `The service does not answer at the moment: ${problem.detail}`;
  return problem.detail ?? String(problem);
}

async function list() {
  const mine = ++asked, sort = $('sort').value;
  const query = new URLSearchParams({ search: $('search').value, sort, offset, limit: LIMIT });
  if (sort === 'id' || sort === 'imdb_rating') query.set('descending', 'true');
  const wanted = FILTERS.filter(name => $(name).value && $(name).checkValidity());
  for (const name of wanted) query.set(name, $(name).value);
  $('clear').hidden = !FILTERS.some(name => $(name).value);
  try {
    const page = await call('GET', `movies?${query}`);
    if (mine === asked) show(page);
    $('problem').hidden = true;
  } catch (problem) {
    if (mine !== asked) return;
    $('problem-text').textContent = said(problem);
    $('problem').hidden = false;
  }
}

function show(page) {
  const state = JSON.stringify([page, offset]);
  if (state === shown) return; // so that focus and selection stay where they are
  shown = state;
  const last = Math.min(offset + LIMIT, page.total), focused = document.activeElement?.dataset.id;
  $('count').textContent = page.total ? `${offset + 1} to ${last} of ${page.total} films` : 'No film fits.';
  $('previous').disabled = offset === 0;
  $('next').disabled = last >= page.total;
  page.movies.forEach(offer);
  $('films').tBodies[0].replaceChildren(...page.movies.map(row));
  if (focused) document.querySelector(`[data-id="${focused}"]`)?.focus();
}

// The filters offer what films on this page and in the stream have had.
function offer(movie) {
  for (const name of ['genre', 'rating']) {
    const list = $(`${name}s`);
    if (!movie[name] || [...list.children].some(option => option.value === movie[name])) continue;
    const option = document.createElement('option');
    option.value = movie[name];
    list.append(option);
  }
}

function row(movie) {
  const line = document.createElement('tr'), title = document.createElement('button');
  title.textContent = movie.title;
  title.dataset.id = movie.id;
  title.onclick = () => open(movie.id);
  const cells = [title, movie.director, movie.released, movie.genre, movie.imdb_rating];
  line.append(...cells.map((value, n) => {
    const cell = document.createElement('td');
    cell.className = ['', 'wide', '', 'wide', 'number'][n];
    cell.append(value ?? '');
    return cell;
  }));
  return line;
}

async function open(id) {
  try {
    edit(id ? await call('GET', `movies/${id}`) : null);
  } catch (problem) {
    $('problem-text').textContent = said(problem);
    $('problem').hidden = false;
  }
}

function edit(movie) {
  film = movie;
  $('editor-title').textContent = movie ? `Film ${movie.id}, version ${movie.version}` : 'New film';
  for (const name of FIELDS) $('form').elements[name].value = movie?.[name] ?? '';
  $('wrong').hidden = $('conflict').hidden = true;
  $('delete').hidden = !movie;
  $('delete').textContent = 'Delete';
  if (!$('editor').open) $('editor').showModal();
  $('form').elements.title.focus();
}

async function change(work) {
  $('save').disabled = $('delete').disabled = true;
  try {
    const changed = await work();
    $('editor').close();
    $('news').textContent = `“${(changed ?? film).title}” was ${changed ? 'saved' : 'deleted'}.`;
    if (!changed) $('films').focus(); // its row is about to go
    follow(changed ?? { ...film, version: film.version + 1 });
  } catch (problem) {
    $('wrong').textContent = said(problem);
    $('wrong').hidden = false;
    if (problem.status === 409 && film) {
      theirs = await call('GET', `movies/${film.id}`).catch(() => null);
      if (theirs) $('wrong').textContent = `Somebody changed this film meanwhile: it is "${theirs.title}", version ${theirs.version}.`;
      $('conflict').hidden = !theirs;
    }
  } finally {
    $('save').disabled = $('delete').disabled = false;
  }
}

// Says how far the read model was behind, once the stream tells of the change; it looks five times a second.
function follow(movie) {
  awaited = { id: movie.id, version: movie.version, replied: performance.now(), told: $('journey').textContent };
  settle();
  list();
}

function settle() {
  const [version, when] = arrived.get(awaited?.id) ?? [0, 0];
  if (!awaited || version < awaited.version) return;
  const lag = Math.round(when - awaited.replied), after = lag > 0 ? `${lag} ms after` : 'before';
  if ($('journey').textContent === awaited.told) $('journey').textContent += ` The read model had it ${after} the reply.`;
  awaited = null;
}

function learn({ id, version, movie }) {
  arrived.delete(id); // so that the oldest is first
  arrived.set(id, [version, performance.now()]);
  if (arrived.size > 1000) arrived.delete(arrived.keys().next().value);
  if (movie) offer(movie);
  settle();
  relist ??= setTimeout(() => { relist = null; list(); }, 50); // many changes at once are one question
}

// The stream is open while the page is looked at: browsers allow a site six connections, for all its tabs together.
function connect() {
  stream?.close();
  stream = document.hidden ? null : new EventSource('movies/events');
  $('live').textContent = '';
  if (!stream) return;
  stream.addEventListener('ready', () => { $('live').textContent = 'Live'; list(); });
  stream.onmessage = event => learn(JSON.parse(event.data));
  stream.onerror = () => $('live').textContent = 'Reconnecting …';
}

function save() {
  const body = { ...film };
  for (const name of FIELDS) body[name] = $('form').elements[name].value || null;
  if (body.imdb_rating !== null) body.imdb_rating = Number(body.imdb_rating);
  return change(() => film ? call('PUT', `movies/${film.id}`, body) : call('POST', 'movies', body));
}

$('form').onsubmit = event => { event.preventDefault(); save(); };
$('cancel').onclick = () => $('editor').close();
$('theirs').onclick = () => edit(theirs);
$('mine').onclick = () => { film = theirs; $('conflict').hidden = true; save(); };
$('delete').onclick = () => {
  if ($('delete').textContent === 'Delete') $('delete').textContent = 'Really delete?';
  else change(() => call('DELETE', `movies/${film.id}`));
};
$('new').onclick = () => open();
$('retry').onclick = list;
$('query').onsubmit = event => { event.preventDefault(); list(); };
$('search').oninput = () => { offset = 0; clearTimeout(typing); typing = setTimeout(list, 100); };
for (const name of ['sort', ...FILTERS]) $(name).onchange = () => { offset = 0; list(); };
$('clear').onclick = () => { for (const name of FILTERS) $(name).value = ''; offset = 0; list(); $('search').focus(); };
const root = document.documentElement;
const dark = () => root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
$('theme').setAttribute('aria-pressed', dark());
$('theme').onclick = () => {
  const theme = dark() ? 'light' : 'dark';
  root.dataset.theme = theme;
  $('theme').setAttribute('aria-pressed', theme === 'dark');
  try { localStorage.setItem('theme', theme); } catch { /* then it holds for this visit */ }
};
$('previous').onclick = () => { offset = Math.max(0, offset - LIMIT); list(); };
$('next').onclick = () => { offset += LIMIT; list(); };
document.onkeydown = event => {
  if ($('editor').open || event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  if (event.key === '/') { event.preventDefault(); $('search').focus(); }
  if (event.key === 'n') { event.preventDefault(); open(); }
};
// While the stream is down, the page asks; a stream that the browser has given up is begun again.
setInterval(() => {
  if (document.hidden || $('live').textContent === 'Live') return;
  list();
  if (stream?.readyState === EventSource.CLOSED) connect();
}, 2000);
document.onvisibilitychange = connect;
connect();
list();
